//! `amoeba bench`: prefill and decode speed, with bytes per token and the share of what the memory delivers.
use amoeba_harness::bench::{BenchOptions, BenchRow, Test, bench, measure_floor};
use serde_json::json;

use super::common::{self, DeviceArgs};
use super::console::{print, print_json};
use super::failure::Failure;

/// Flags of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Model folder or name; the bundled one unless told
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Prompt lengths to prefill; 0 for none
    #[arg(short = 'p', long, value_name = "N,N", value_delimiter = ',', default_value = "512")]
    prompt: Vec<u32>,
    /// Numbers of tokens to decode; 0 for none
    #[arg(short = 'n', long = "n-gen", value_name = "N,N", value_delimiter = ',', default_value = "128")]
    generate: Vec<u32>,
    /// Positions cached before decoding
    #[arg(short = 'd', long, value_name = "N,N", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Repetitions of each test after a warm-up
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Measure read bandwidth too; rows then carry their share of it
    #[arg(long)]
    floor: bool,
    /// One JSON object per test
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Sizes of the bandwidth measurement: in cache, at its edge, far outside.
const FLOOR_BYTES: [usize; 3] = [16 << 20, 128 << 20, 1 << 30];

/// Measures and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dir = match &args.model {
        Some(name) => common::find(name)?.0,
        None => amoeba::bundled_model()?,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.device.threads.map_or(cores, usize::from);
    let mut bandwidth = None;
    if args.floor {
        let floor = measure_floor(threads, &FLOOR_BYTES);
        bandwidth = floor.memory(threads);
        for row in &floor.read {
            let (median, best) = (row.median / 1e9, row.best / 1e9);
            let mib = row.bytes >> 20;
            if args.json {
                print_json(
                    &json!({ "read_threads": row.threads, "mib": mib, "gb_s": median, "best_gb_s": best }),
                )?;
            } else {
                print(&format!(
                    "read {mib} MiB, {} threads: {median:.1} GB/s, best {best:.1}\n",
                    row.threads
                ))?;
            }
        }
    }
    let load = args.device.options(None);
    let options = BenchOptions { tests: tests(args)?, repeats: args.repeats as usize, load, bandwidth };
    let rows = bench(&dir, &options)?;
    if args.json {
        return rows.iter().try_for_each(|row: &BenchRow| print(&format!("{}\n", row.json())));
    }
    print(
        "| model | test | tok/s | p10–p90 | weights | of bandwidth | path | device |\n|---|---|---|---|---|---|---|---|\n",
    )?;
    rows.iter().try_for_each(|row| print(&format!("{row}\n")))
}

fn tests(args: &Args) -> Result<Vec<Test>, Failure> {
    let prefill = args.prompt.iter().filter(|&&n| n > 0).map(|&n| Test::Prefill(n as usize));
    let decode = args.depth.iter().flat_map(|&depth| {
        let tokens = args.generate.iter().filter(|&&n| n > 0);
        tokens.map(move |&n| Test::Decode { tokens: n as usize, depth: depth as usize })
    });
    let tests: Vec<Test> = prefill.chain(decode).collect();
    if tests.is_empty() {
        return Err(Failure::usage("nothing to measure: give -p or -n a number above 0"));
    }
    Ok(tests)
}
