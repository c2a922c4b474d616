//! `amoeba bench`: prefill and decode speed, compared with what the memory and the arithmetic of the machine deliver.
use std::path::{Path, PathBuf};

use amoeba::Device;
use amoeba_harness::bench::{
    BenchOptions, BenchRow, Best, Floor, FloorCache, Kind, SIZES, Test, bench, compare, csv, markdown,
    measure_floor, measure_missing, parse_rows, size_class, thread_counts,
};
use clap::ValueEnum;
use serde_json::Value;

use super::common::{self, PlaceArgs};
use super::console::{Console, print};
use super::device_floor;
use super::failure::{self, Failure};
use super::files::{self, read_rows};
use super::plot::{check_folder, draw, from_file};
use super::system;

const FIELDS: &str = "\
What a row holds (-o json, jsonl, csv; the table shows a part of it):
  test, kind, tokens, depth, batch   pp512 prefills 512 tokens, tg128x4@1000 decodes 128 tokens of each of 4 sequences
                      with 1000 positions cached (1 where the depth is 0); filling the cache is not timed
  version, commit, dirty, rustc      of this program; dirty: sources differed from the commit when it was built
  cpu, cores, isa, os, clock_mhz     of this machine; isa is the widest instruction set; the clock right after the
                      repetitions, mean over cores (null where the system does not say)
  device, device_detail, threads     where it ran; device_detail names the instruction set asked for
  isa_ran             instruction set that the steps ran on; `+amx` in it only if products ran on AMX tiles
  model, model_hash, model_bytes, formats   the hash covers config.json, the headers of the weight files, and of every
                      tensor 64 bytes at its beginning, in its middle and at its end
  path, path_reason                  path through the experts, and why it was taken
  sampling            decode: `device` where it samples the tokens itself, one step ahead of the host, as in `run` (one
                      sequence, the likeliest token); `host` where the logits of every token come to the host
  kv_type, activations               type of the KV cache, and precision of activations in products
  warmups, repeats, samples_ns       one warm-up, then the tests take turns; every repetition in ns
  median_ns, p10_ns, p90_ns, spread  spread = (p90 - p10) / median
  untrusted           null, or why not to believe the row: a spread over 4 %, fewer than 3 repetitions, other work
  other_cores, floor_other_cores     cores that other work used during the tests, and when the floor was measured (Linux;
                      null where the time was too short to tell); over 0.15 the row is untrusted, the floor too low
  tok_s_median        tokens per second at the median, all sequences together
  bytes_per_token, bytes_per_token_parts   decode: bytes of a step divided by its sequences: stored weights (an expert
                      that several rows need counts once), and keys and values at the mean position
  distinct_experts    decode: different experts a step needs per layer, counted while running
  achieved_gb_s, bandwidth_gb_s, bandwidth_mib, share_of_floor   decode: bytes per second; the same threads reading a
                      buffer of bandwidth_mib (the first of 16, 64, 256, 1024 that holds the model); their ratio
  plain_reads_gb_s, share_of_plain_reads   decode: plain reads of the weights (at most 256 MiB) by the same
                      threads before and after each repetition, mean of both; median of the ratios, which the table shows: on a shared
                      machine bandwidth changes by the minute, and from one region of memory to another
  products_g_s, share_of_f32, share_of_int8   prefill: 10^9 products of a weight and a number of x per second; its
                      ratio to f32_g_s and to int8_g_s (amx_g_s where isa_ran has `+amx`). A product takes
                      several multiply-adds of int8: share_of_int8 stays below 1
  f32_g_s, int8_g_s, amx_g_s         10^9 multiply-adds per second that these threads do in f32, in int8 on the vector
                      units, and in int8 on AMX tiles (null without them)
  phases_per_step     parallel phases of a step, each of which ends with a wait for its last item
  op_times, rows_per_step, step_ns, host_ns_per_step, execute_ns_per_step   the first steps of the test, at most 8,
                      recorded off the clock, the faster half of them: by op the ns that workers spent on it, the mean
                      ns of a worker, and the bytes and products it needs (of a prompt as many experts as its rows can
                      choose); rows and ns of a step; the part in which one thread prepares phases and checks logits,
                      and the rest
  load_ms, first_token_ms            from opening the folder until ready, and until the logits of a first token; the
                      file cache is left as it is
  memory_bytes, peak_memory_bytes, peak_memory_ratio   weights, caches, buffers; most memory held since the load began
                      (Linux; mapped file pages count); its ratio to model_bytes

The floor (bandwidth and multiply-adds) is measured once, kept in the cache folder (XDG_CACHE_HOME/amoeba), and used
from then on; rows that lack a part of it measure that part briefly after the tests. `--floor --refresh` measures anew.";

/// Flags of `bench`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = FIELDS)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Model folder or name [default: the bundled model]
    #[arg(value_name = "MODEL", conflicts_with = "floor")]
    model: Option<String>,
    /// Prompt lengths to prefill; 0 for none
    #[arg(short = 'p', long, value_name = "N,N", value_delimiter = ',', default_value = "512")]
    prompt: Vec<u32>,
    /// Numbers of tokens to decode; 0 for none
    #[arg(short = 'n', long = "n-gen", value_name = "N,N", value_delimiter = ',', default_value = "128")]
    generate: Vec<u32>,
    /// Positions cached before each test
    #[arg(short = 'd', long, value_name = "N,N", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Sequences decoded at a time
    #[arg(short = 'b', long, value_name = "N,N", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u16).range(1..))]
    batch: Vec<u16>,
    /// Repetitions of each test after a warm-up
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
    /// Same as -o jsonl
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Write the rows to a file in the form of -o; standard output shows the table
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// Draw the rows into a folder as SVG: a roofline per decode and prefill test, tokens per second against depth,
    /// time per op
    #[arg(long, value_name = "DIR", conflicts_with = "floor")]
    plot: Option<PathBuf>,
    /// Show what this machine (with --device cuda: its GPU) can do at best, measured now if it never was; no model is loaded
    #[arg(long)]
    floor: bool,
    /// With --floor: measure again
    #[arg(long, requires = "floor")]
    refresh: bool,
    #[command(flatten)]
    place: PlaceArgs,
    /// Numbers of worker threads [default: one per core]
    #[arg(short, long, value_name = "N,N", value_delimiter = ',', help_heading = "Device",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Compare two files of rows (json or jsonl); the ratio is second over first
    Compare {
        /// The rows to compare with
        #[arg(value_name = "A.json")]
        first: PathBuf,
        /// The rows to judge
        #[arg(value_name = "B.json")]
        second: PathBuf,
    },
    /// Draw a file of rows (json or jsonl) as `--plot` draws those of a run
    Plot {
        /// The rows to draw
        #[arg(value_name = "ROWS.json")]
        rows: PathBuf,
        /// Folder for the pictures
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table
    #[default]
    Md,
    /// A line per row
    Csv,
    /// A list
    Json,
    /// An object per line
    Jsonl,
}

/// Measures, or compares what was measured.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    match &args.action {
        Some(Action::Compare { first, second }) => compare_files(first, second),
        Some(Action::Plot { rows, dir }) => from_file(rows, dir, console),
        None if args.floor => show_floor(args, console),
        None => measure(args, console),
    }
}

fn measure(args: &Args, console: &Console) -> Result<(), Failure> {
    let tests = tests(args)?;
    let (dir, name) = common::named(args.model.as_deref())?;
    let mut options = BenchOptions {
        name,
        tests,
        repeats: args.repeats as usize,
        load: args.place.options(None, None),
        threads: 1,
        build: system::build(),
        host: system::host(),
        peak_memory: system::peak_memory,
        others: system::others,
        clock: system::clock,
    };
    args.output_file.as_deref().map_or(Ok(()), files::check_writable)?;
    args.plot.as_deref().map_or(Ok(()), check_folder)?;
    let mut rows = Vec::new();
    for threads in threads(args) {
        options.threads = threads;
        system::reset_peak_memory();
        rows.extend(bench(&dir, &options)?);
    }
    hold_against_floor(&mut rows, console);
    let text = render(&rows, form(args));
    match &args.output_file {
        None => print(&text)?,
        Some(file) => {
            files::write(file, &text)?;
            print(&markdown(&rows))?;
        }
    }
    let Some(dir) = &args.plot else { return Ok(()) };
    // Through text, as from a file: the pictures are the same to the last bit.
    let rows =
        parse_rows(&render(&rows, Form::Jsonl)).map_err(|fault| Failure::new(failure::FAILED, fault))?;
    let written = draw(&rows, dir, console)?;
    console.note(&format!("{} pictures are in {}", written.len(), dir.display()));
    Ok(())
}

fn form(args: &Args) -> Form {
    if args.json { Form::Jsonl } else { args.output }
}

fn render(rows: &[BenchRow], form: Form) -> String {
    match form {
        Form::Md => markdown(rows),
        Form::Csv => csv(rows),
        Form::Json => format!("{:#}\n", Value::Array(rows.iter().map(BenchRow::json).collect())),
        Form::Jsonl => rows.iter().map(|row| format!("{}\n", row.json())).collect(),
    }
}

fn tests(args: &Args) -> Result<Vec<Test>, Failure> {
    let numbers = |list: &[u32]| list.iter().filter(|&&n| n > 0).map(|&n| n as usize).collect::<Vec<_>>();
    let mut tests = Vec::new();
    for depth in args.depth.iter().map(|&depth| depth as usize) {
        for tokens in numbers(&args.prompt) {
            tests.push(Test { kind: Kind::Prefill, tokens, depth, batch: 1 });
        }
        for tokens in numbers(&args.generate) {
            let decode = |&batch: &u16| Test { kind: Kind::Decode, tokens, depth, batch: usize::from(batch) };
            tests.extend(args.batch.iter().map(decode));
        }
    }
    if tests.is_empty() {
        return Err(Failure::usage("nothing to measure: give -p or -n a number above 0"));
    }
    Ok(tests)
}

fn threads(args: &Args) -> Vec<usize> {
    match args.place.device {
        // They have one, and a second run would measure the same again.
        Device::Reference | Device::Cuda(_) => vec![1],
        _ if args.threads.is_empty() => vec![system::cores()],
        _ => args.threads.iter().map(|&threads| usize::from(threads)).collect(),
    }
}

/// The floor as it is kept, and where; a file that cannot be used is reported and ignored.
fn stored(console: &Console) -> (Floor, Option<FloorCache>) {
    let cache =
        common::cache_folder().map(|folder| FloorCache::new(&folder, &system::host(), &system::build()));
    let found = match cache.as_ref().map(FloorCache::load) {
        Some(Ok(found)) => found,
        Some(Err(fault)) => {
            console.note(&format!("{fault}; measuring anew"));
            None
        }
        None => {
            console.note("there is no cache folder to keep the floor in; set XDG_CACHE_HOME");
            None
        }
    };
    (found.unwrap_or_default(), cache)
}

fn keep(floor: &Floor, cache: Option<&FloorCache>, console: &Console) {
    if let Some(Err(fault)) = cache.map(|cache| cache.store(floor)) {
        console.note(&format!("the floor is not kept: {fault}"));
    }
}

fn show_floor(args: &Args, console: &Console) -> Result<(), Failure> {
    let form = form(args);
    if form == Form::Csv || args.output_file.is_some() {
        return Err(Failure::usage("--floor prints a table or JSON (-o md, -o json) to standard output"));
    }
    if let Device::Cuda(device) = args.place.device {
        return device_floor::show(device, matches!(form, Form::Json | Form::Jsonl));
    }
    let counts = thread_counts(system::cores());
    let (mut floor, cache) = stored(console);
    let measured = |&threads: &usize| {
        let slow = |bytes| floor.bandwidth(threads, bytes).is_some_and(|row| !row.quick);
        SIZES.into_iter().all(slow) && floor.rates(threads).is_some_and(|row| !row.quick)
    };
    if args.refresh || !counts.iter().all(measured) {
        floor.merge(measure_floor(&counts, system::others));
        keep(&floor, cache.as_ref(), console);
    }
    match form {
        Form::Json => print(&format!("{:#}\n", floor.json())),
        Form::Jsonl => print(&format!("{}\n", floor.json())),
        _ => print(&floor.markdown()),
    }
}

/// Fills in what the machine does at best, measuring what is not known. Only after the tests and after their memory
/// was counted: it uses both.
fn hold_against_floor(rows: &mut [BenchRow], console: &Console) {
    if device_floor::hold_against(rows, console) {
        return;
    }
    let (mut floor, cache) = stored(console);
    let mut changed = false;
    for row in rows {
        let class = size_class(usize::try_from(row.model.bytes).unwrap_or(usize::MAX));
        if let Some(missing) = measure_missing(&floor, row.threads, class, system::others) {
            floor.merge(missing);
            changed = true;
        }
        row.best =
            floor.bandwidth(row.threads, class).zip(floor.rates(row.threads)).map(|(read, rates)| Best {
                bandwidth: read.median,
                bytes: read.bytes,
                f32: rates.f32,
                int8: rates.int8,
                amx: rates.amx,
                others: read.others,
            });
    }
    if changed {
        keep(&floor, cache.as_ref(), console);
    }
}

fn compare_files(first: &Path, second: &Path) -> Result<(), Failure> {
    let comparison = compare(&read_rows(first)?, &read_rows(second)?);
    print(&comparison.markdown())?;
    if comparison.pairs.is_empty() {
        return Err(Failure::new(failure::FAILED, "no two rows can be compared"));
    }
    Ok(())
}
