//! `amoeba bench`: prefill and decode speed, compared with what the memory and the arithmetic of the machine
//! deliver.
use std::path::{Path, PathBuf};

use amoeba::Device;
use amoeba_harness::bench::{
    BenchOptions, BenchRow, Floor, FloorCache, Kind, SIZES, Test, bench, compare, csv, markdown,
    measure_floor, measure_missing, parse_rows, size_class, thread_counts,
};
use clap::ValueEnum;
use serde_json::json;

use super::common::{self, PlaceArgs};
use super::console::{Console, print, print_json};
use super::device_floor;
use super::failure::{self, Failure};
use super::files::{self, read_rows};
use super::plot::{check_folder, draw, from_file};
use super::system;

const FLOOR: &str = "\
The floor (bandwidth and multiply-adds) is measured once, kept in the cache folder (XDG_CACHE_HOME/amoeba),
and used from then on; rows that lack a part of it measure that part briefly after the tests.
`--floor --refresh` measures anew.";

/// What the keys of a row mean.
fn fields() -> String {
    let mut out = "What a row holds (-o json, jsonl, csv; the table shows a part of it):\n".to_owned();
    for (key, lines) in BenchRow::KEYS {
        let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        out += &format!("  {key:<21} {}\n", lines.join(&format!("\n{:24}", "")));
    }
    out + "\n" + FLOOR
}

/// Flags of `bench`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = fields())]
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
    #[arg(short, long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..))]
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
    /// Draw the rows into a folder as SVG: a roofline per decode and prefill test, tokens per second against
    /// depth, time per op
    #[arg(long, value_name = "DIR", conflicts_with = "floor")]
    plot: Option<PathBuf>,
    /// Show what this machine (with --device cuda: its GPU) can do at best, measured now if it never was; no
    /// model is loaded
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
        Form::Json => format!("{:#}\n", json!(rows)),
        Form::Jsonl => rows.iter().map(|row| format!("{}\n", json!(row))).collect(),
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
        let slow = |mib| floor.bandwidth(threads, mib).is_some_and(|row| !row.quick);
        SIZES.into_iter().all(slow) && floor.rates(threads).is_some_and(|row| !row.quick)
    };
    if args.refresh || !counts.iter().all(measured) {
        floor.merge(measure_floor(&counts, system::others));
        keep(&floor, cache.as_ref(), console);
    }
    match form {
        Form::Json => print_json(&json!(floor)),
        Form::Jsonl => print(&format!("{}\n", json!(floor))),
        _ => print(&floor.markdown()),
    }
}

/// Fills in what the machine does at best, measuring what is not known. Only after the tests and after their
/// memory was counted: it uses both.
fn hold_against_floor(rows: &mut [BenchRow], console: &Console) {
    if device_floor::hold_against(rows, console) {
        return;
    }
    let (mut floor, cache) = stored(console);
    let mut changed = false;
    for row in rows {
        let class = size_class(row.model_bytes);
        if let Some(missing) = measure_missing(&floor, row.threads, class, system::others) {
            floor.merge(missing);
            changed = true;
        }
        if let Some(read) = floor.bandwidth(row.threads, class) {
            row.hold_against(&read, floor.rates(row.threads).as_ref());
        }
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
