//! `amoeba doctor`: what a bug report needs to say about the machine.
use amoeba::{Hub, bundled_model};
use amoeba_engine::cuda::{DeviceInfo, Libraries, Machine, Nvrtc, overlap_from_env};
use amoeba_kernels::simd::Isa;
use serde_json::json;

use super::console::{bytes, print, print_json, row, table};
use super::failure::Failure;
use super::system;

/// Flags of `doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints the report. Secrets stay out of it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let hub = Hub::from_env();
    let sets: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    let bundled = bundled_model();
    let memory = system::memory();
    let cached = hub.list();
    let cuda = Machine::find(&Libraries::from_env());
    if args.json {
        return print_json(&json!({
            "version": env!("AMOEBA_VERSION"),
            "system": { "os": std::env::consts::OS, "architecture": std::env::consts::ARCH },
            "cpu": { "model": system::processor(), "cores": system::cores(), "instruction_sets": sets },
            "memory": memory.map(|m| {
                json!({ "total": m.total, "available": m.available, "limited": m.limited })
            }),
            "cuda": cuda_json(&cuda),
            "hub": {
                "cache": hub.cache(),
                "endpoint": hub.endpoint(),
                "offline": hub.is_offline(),
                "models": cached.as_ref().ok().map(Vec::len),
            },
            "bundled_model": bundled.ok(),
        }));
    }
    let memory = memory.map_or("unknown".to_owned(), |m| {
        let limit = if m.limited { " (container limit)" } else { "" };
        format!("{} free of {}{limit}", bytes(m.available), bytes(m.total))
    });
    let cached = match cached {
        Ok(models) => format!("{} models", models.len()),
        Err(error) => error.to_string(),
    };
    let offline = if hub.is_offline() { " (offline)" } else { "" };
    let rows = [
        row([&"version", &env!("AMOEBA_VERSION")]),
        row([&"system", &format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)]),
        row([&"cpu", &system::processor().unwrap_or_else(|| "unknown".to_owned())]),
        row([&"cores", &system::cores()]),
        row([&"instructions", &sets.join(", ")]),
        row([&"memory", &memory]),
        row([&"gpu", &cuda_text(&cuda)]),
        row([&"model cache", &format!("{} ({cached})", hub.cache().display())]),
        row([&"hub", &format!("{}{offline}", hub.endpoint())]),
        row([
            &"bundled model",
            &bundled.map_or_else(|_| "not found".to_owned(), |dir| dir.display().to_string()),
        ]),
    ];
    print(&table(&rows, [false, false]))
}

/// Devices, driver and compiler, or what is missing of them.
fn cuda_text(cuda: &Machine) -> String {
    let (driver, devices) = match &cuda.devices {
        Ok(found) => found,
        Err(missing) => return format!("none: {missing}"),
    };
    let compiler = match &cuda.nvrtc {
        Some(nvrtc) => nvrtc_text(nvrtc),
        None => "NVRTC not found: `pip install nvidia-cuda-nvrtc`, or set LD_LIBRARY_PATH".to_owned(),
    };
    let device = |device: &DeviceInfo| {
        let old = if device.supported() { "" } else { ", too old for amoeba" };
        let memory = bytes(device.memory as u64);
        let overlap = if overlaps(device) { ", launches overlap" } else { "" };
        format!("cuda:{} {} ({}, {memory}{overlap}{old})", device.index, device.name, device.arch())
    };
    let devices: Vec<String> = devices.iter().map(device).collect();
    format!("{}; driver for CUDA {}; {compiler}", devices.join(", "), driver.version())
}

/// Whether a launch begins there while the one before it ends.
fn overlaps(device: &DeviceInfo) -> bool {
    device.overlaps() && overlap_from_env()
}

fn nvrtc_text(nvrtc: &Nvrtc) -> String {
    let place = nvrtc.folder().map_or_else(String::new, |folder| format!(" in {}", folder.display()));
    format!("NVRTC {}{place}", nvrtc.version())
}

fn cuda_json(cuda: &Machine) -> serde_json::Value {
    let device = |device: &DeviceInfo| {
        json!({
            "index": device.index, "name": device.name, "arch": device.arch(), "memory": device.memory,
            "multiprocessors": device.multiprocessors, "supported": device.supported(),
            "overlapping_launches": overlaps(device),
        })
    };
    match &cuda.devices {
        Err(missing) => json!({ "missing": missing.to_string(), "devices": [] }),
        Ok((driver, devices)) => json!({
            "driver": driver.version(),
            "nvrtc": cuda.nvrtc.as_ref().map(Nvrtc::version),
            "devices": devices.iter().map(device).collect::<Vec<_>>(),
        }),
    }
}
