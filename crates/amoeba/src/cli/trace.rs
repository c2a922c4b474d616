//! `amoeba trace`: what every worker does during a decode token, where it waits, and whether that became
//! worse.
use std::path::{Path, PathBuf};

use amoeba::PathChoice;
use amoeba_harness::trace::{
    CaptureOptions, Checked, Summary, Trace, capture, check, chrome, overhead, picture,
};
use clap::ValueEnum;
use serde_json::json;

use super::common::{self, DeviceArgs};
use super::console::{Console, print, print_json};
use super::failure::{self, Failure};
use super::files::{read_baseline, write};
use super::system;

/// Tokens captured where a spread is wanted and no number is given.
const TOKENS: u16 = 32;
/// Range of idle shares above which a baseline is of little use.
const SPREAD_MAX: f64 = 0.1;
/// Rounds of `--overhead`.
const ROUNDS: usize = 200;

const RULES: &str = "\
What is written:
  -o FILE             open it at https://ui.perfetto.dev or chrome://tracing: a process per path, a row per
                      worker, a slice per piece of an op (args: layer, op, bytes, phase, path), the bandwidth
                      as a counter
  --svg FILE          the shortest token captured, and the experts of one layer; idle time is grey

What the summary says, per token:
  phases              pieces of work divided among workers (on a GPU: launches), each ended by a wait
  idle                workers' time without work; in the table under the op that the worker waited for, and of
                      it what lies between a router's output and the weighted sum of its experts
  (start) (input)     overhead of dividing work: counting and grouping items; preparing x in the form the
                      weights need

What --check compares (--tokens is that of the baseline, or 32; at least 8):
  refused (exit 2)    another model, device, number of workers, path, type of cache, rounding, depth or number
                      of tokens
  phases, bytes       may not grow at all
  idle time           of the whole token, and of the experts' part of a layer, as shares of the workers' time,
                      since hosts differ: grown when even the quietest tenth of the tokens is worse than the
                      baseline's ninetieth percentile by more than 2 points. Other work can only add to it, so
                      while that is all that grew the capture is repeated (5 in all within 2 seconds); the
                      last one counts
  exit 1              if anything grew";

/// Flags of `trace`.
#[derive(clap::Args)]
#[command(after_long_help = RULES)]
pub struct Args {
    /// Model folder or name [default: the bundled model]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Positions cached before the first captured token
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    depth: u32,
    /// Tokens to capture after the warm-up [default: 1, or 32 where a spread is needed]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    tokens: Option<u16>,
    /// Write the trace for Perfetto to a file [default: trace.json; none with --check, --save-baseline,
    /// --json, --svg]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw the timelines into a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Summary as JSON
    #[arg(long)]
    json: bool,
    /// Summary of an earlier capture to compare with
    #[arg(long, value_name = "FILE", requires = "check")]
    baseline: Option<PathBuf>,
    /// Fail if phases, bytes or idle time grew since the baseline
    #[arg(long, requires = "baseline")]
    check: bool,
    /// Write the summary to a file, as a baseline for later
    #[arg(long, value_name = "FILE", conflicts_with = "compare")]
    save_baseline: Option<PathBuf>,
    /// Capture two paths and draw them above each other (trace.svg, unless --svg says where)
    #[arg(long, value_name = "PATH,PATH", value_delimiter = ',', num_args = 1,
          conflicts_with_all = ["path", "check"])]
    compare: Vec<Way>,
    /// Measure what recording costs
    #[arg(long, conflicts_with_all = ["compare", "check", "output", "svg", "save_baseline", "json"])]
    overhead: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// A path by name.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Fused,
    Unfused,
}

/// Captures and shows, compares or checks.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let (dir, name) = common::named(args.model.as_deref())?;
    let mut options = CaptureOptions {
        name,
        load: args.device.options(None),
        depth: args.depth as usize,
        tokens: tokens(args),
        build: system::build(),
        host: system::host(),
    };
    if args.overhead {
        let rounds = overhead(&dir, &options, ROUNDS)?;
        return print(&rounds.text());
    }
    if !args.compare.is_empty() {
        return compare(args, &dir, options);
    }
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    if let (Some(baseline), None) = (&baseline, args.tokens) {
        options.tokens = baseline.subject.tokens;
    }
    let checked = match &baseline {
        Some(baseline) => check(&dir, &options, baseline)?,
        None => {
            let trace = capture(&dir, &options)?;
            Checked { summary: trace.summary(), trace, grew: Vec::new(), attempts: 1 }
        }
    };
    let summary = &checked.summary;
    let plain = !args.check && !args.json && args.save_baseline.is_none() && args.svg.is_none();
    let output = args.output.clone().or_else(|| plain.then(|| PathBuf::from("trace.json")));
    write_all(output.as_deref(), args, &[&checked.trace])?;
    if let Some(file) = &args.save_baseline {
        if summary.idle.p90 - summary.idle.p10 > SPREAD_MAX {
            console.note(
                "idle time varies much from token to token: other work runs here, and this baseline will \
                 forgive a lot",
            );
        }
        write(file, &format!("{:#}\n", json!(summary)))?;
    }
    if args.json {
        print_json(&json!(summary))?;
    } else {
        let written =
            |file: &PathBuf| format!("\nwritten: {} (open it at https://ui.perfetto.dev)\n", file.display());
        print(&(summary.markdown() + &output.as_ref().map_or_else(String::new, written)))?;
    }
    baseline.map_or(Ok(()), |baseline| verdict(&checked, &baseline, args.json))
}

fn tokens(args: &Args) -> usize {
    let spread = args.save_baseline.is_some() || args.overhead || !args.compare.is_empty();
    usize::from(args.tokens.unwrap_or(if spread { TOKENS } else { 1 }))
}

fn verdict(checked: &Checked, baseline: &Summary, json: bool) -> Result<(), Failure> {
    let Checked { summary, grew, attempts, .. } = checked;
    if !grew.is_empty() {
        let grew: Vec<String> = grew.iter().map(ToString::to_string).collect();
        let often = if *attempts > 1 { format!(" ({attempts} captures)") } else { String::new() };
        return Err(Failure::new(
            failure::FAILED,
            format!("worse than the baseline{often}: {}", grew.join("; ")),
        ));
    }
    if json {
        return Ok(());
    }
    let [idle, before] = [summary.idle.median, baseline.idle.median].map(|share| share * 100.0);
    print(&format!(
        "\nno worse than the baseline: phases {:.0} (baseline {:.0}), MB {:.2} ({:.2}), idle {idle:.1} % \
         ({before:.1} %)\n",
        summary.phases,
        baseline.phases,
        summary.bytes / 1e6,
        baseline.bytes / 1e6,
    ))
}

fn compare(args: &Args, dir: &Path, mut options: CaptureOptions) -> Result<(), Failure> {
    let [first, second] = args.compare[..] else {
        return Err(Failure::usage("--compare takes two paths: --compare fused,unfused"));
    };
    if first == second {
        return Err(Failure::usage("--compare takes two different paths: --compare fused,unfused"));
    }
    let mut traces = Vec::new();
    for way in [first, second] {
        options.load.path = if way == Way::Fused { PathChoice::Fused } else { PathChoice::Unfused };
        let trace = capture(dir, &options)?;
        if (trace.subject.path == "fused") != (way == Way::Fused) {
            let reason = &trace.subject.path_reason;
            return Err(Failure::usage(format!("both captures would be the same: the path is {reason}")));
        }
        traces.push(trace);
    }
    let both: Vec<&Trace> = traces.iter().collect();
    write_all(args.output.as_deref(), args, &both)?;
    let svg = PathBuf::from("trace.svg");
    if args.svg.is_none() {
        write(&svg, &picture(&both))?;
    }
    let summaries: Vec<Summary> = traces.iter().map(Trace::summary).collect();
    if args.json {
        return print_json(&json!(summaries));
    }
    let texts: Vec<String> = summaries.iter().map(Summary::markdown).collect();
    let [a, b] = [&summaries[0], &summaries[1]];
    let apart = a.wall_ns.p10 > b.wall_ns.p90 || b.wall_ns.p10 > a.wall_ns.p90;
    let spread = if apart { "" } else { ", within the spread" };
    print(&format!(
        "{}\n{}: {:.3} of the time of {}{spread}; {:.0} phases, not {:.0}\nwritten: {}\n",
        texts.join("\n"),
        a.subject.path,
        a.wall_ns.median / b.wall_ns.median,
        b.subject.path,
        a.phases,
        b.phases,
        args.svg.as_ref().unwrap_or(&svg).display(),
    ))
}

fn write_all(output: Option<&Path>, args: &Args, traces: &[&Trace]) -> Result<(), Failure> {
    output.map_or(Ok(()), |file| write(file, &chrome(traces)))?;
    args.svg.as_ref().map_or(Ok(()), |file| write(file, &picture(traces)))
}
