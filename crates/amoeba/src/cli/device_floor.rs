//! What a GPU does at best, for `bench`.
use amoeba_backend::DeviceKind;
use amoeba_engine::cuda::{Floor, Libraries, measure_floor};
use amoeba_harness::bench::{Bandwidth, BenchRow};
use serde_json::json;

use super::common::kernel_cache;
use super::console::{Console, print};
use super::failure::Failure;

fn measure(device: usize) -> Result<Floor, Failure> {
    let floor = measure_floor(device, &Libraries::from_env(), kernel_cache().as_ref());
    floor.map_err(|error| amoeba_engine::Error::Cuda(error).into())
}

/// Measures a device and prints it.
pub fn show(device: usize, as_json: bool) -> Result<(), Failure> {
    let Floor { device, bandwidth, bytes, launch, node, overlapping, barrier } = measure(device)?;
    let [gigabytes, mebibytes] = [bandwidth / 1e9, (bytes >> 20) as f64];
    let [launch, node, barrier] = [launch, node, barrier].map(|seconds| seconds * 1e9);
    let overlapping = overlapping.map(|seconds| seconds * 1e9);
    if as_json {
        return print(&format!(
            "{}\n",
            json!({
                "device": device, "bandwidth_gb_s": gigabytes, "bandwidth_mib": mebibytes,
                "launch_ns": launch,
                "graph_node_ns": node, "overlapping_node_ns": overlapping,
                "grid_barrier_ns": barrier,
            })
        ));
    }
    let overlapping =
        overlapping.map_or_else(String::new, |ns| format!("| the same, overlapping, ns | {ns:.0} |\n"));
    print(&format!(
        "{device}\n\n| | |\n|---|---:|\n| reads of {mebibytes:.0} MiB, GB/s | {gigabytes:.0} |\n\
         | launch to launch, ns | {launch:.0} |\n| node to node of a graph, ns | {node:.0} |\n{overlapping}\
         | barrier to barrier of the grid, ns | {barrier:.0} |\n"
    ))
}

/// Fills in what the GPU of the rows does at best; false if they ran elsewhere.
pub fn hold_against(rows: &mut [BenchRow], console: &Console) -> bool {
    let Some(DeviceKind::Cuda(device)) = rows.first().map(|row| row.ran_on) else { return false };
    let floor = match measure(device) {
        Ok(floor) => floor,
        Err(failure) => {
            console.note(&format!("what the device does at best is not known: {}", failure.message));
            return true;
        }
    };
    let (gb_s, mib) = (floor.bandwidth / 1e9, floor.bytes >> 20);
    let read = Bandwidth { threads: 1, mib, gb_s, best_gb_s: gb_s, quick: false, other_cores: None };
    // Its arithmetic was not measured.
    rows.iter_mut().for_each(|row| row.hold_against(&read, None));
    true
}
