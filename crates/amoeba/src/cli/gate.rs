//! `amoeba gate`: whether the fast path of a model may be trusted here.
use std::path::{Path, PathBuf};
use std::time::Instant;

use amoeba::Tokenizer;
use amoeba_harness::gate::{Against, GateOptions, Prompt, Report, gate};

use super::common::{self, DeviceArgs};
use super::console::{Console, print, time};
use super::failure::{self, Failure};
use super::files::{self, check_writable, read_baseline};
use super::system;

/// Flags of `gate`.
#[derive(clap::Args)]
pub struct Args {
    /// Model folder or name [default: the bundled model]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// What answers and distributions are compared with: unfused, reference, or a file of `eval --record`
    #[arg(long, value_name = "unfused|reference|FILE", default_value = "unfused", value_parser = against)]
    against: Against,
    /// Fewer tokens; timings are reported but cannot fail the gate
    #[arg(long)]
    fast: bool,
    /// Skip all timings
    #[arg(long)]
    no_bench: bool,
    /// Also compare phases, bytes and idle time with a file of `trace --save-baseline`
    #[arg(long, value_name = "FILE")]
    trace_baseline: Option<PathBuf>,
    /// Also write the report to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write it to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Prompts of several kinds: facts, code, numbers, other scripts, repetition, a chat.
const PROMPTS: [(&str, &str); 8] = [
    ("moon", "The moon is"),
    ("capital", "The capital of France is Paris. The capital of Japan is"),
    ("code", "fn fibonacci(n: u64) -> u64 {\n    if n < 2 {\n        return n;\n    }\n"),
    ("sum", "Two and three is five. 17 + 25 = 42. 9 + 8 ="),
    ("scripts", "Übergröße, naïve café, добрый день, 東京は日本の首都です。"),
    ("repetition", "one two three one two three one two three one"),
    ("chat", "<|im_start|>user\nWhat is a good way to learn to swim?<|im_end|>\n<|im_start|>assistant\n"),
    ("list", "# Shopping list\n\n1. bread\n2. butter\n3."),
];

fn against(text: &str) -> Result<Against, String> {
    Ok(match text {
        "unfused" => Against::Unfused,
        "reference" => Against::Reference,
        "" => return Err("name a file, or say unfused or reference".to_owned()),
        file => Against::Record(file.into()),
    })
}

/// Runs the checks and prints the report; a check that failed is exit code 1.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let (dir, name) = common::named(args.model.as_deref())?;
    args.output.iter().chain(&args.json).try_for_each(|file| check_writable(file))?;
    let checkpoint = amoeba_engine::open(&dir)?;
    let started = Instant::now();
    let options = GateOptions {
        name,
        build: system::build(),
        load: args.device.options(None),
        against: args.against.clone(),
        prompts: prompts(&dir, args.fast, console)?,
        fast: args.fast,
        bench: !args.no_bench,
        baseline: args.trace_baseline.as_deref().map(read_baseline).transpose()?,
        clock: &|| started.elapsed().as_nanos() as u64,
        progress: &|group| console.note(&format!("after {}: {group}", time(started.elapsed()))),
    };
    let loader = |load: &amoeba_engine::LoadOptions| {
        Ok(amoeba_engine::load_executable(&checkpoint, load, &mut |_, _| {})?)
    };
    let report = gate(&checkpoint, &options, &loader)?;
    print(&report.markdown())?;
    write(args, &report)?;
    match &report.failed()[..] {
        _ if report.passed() => Ok(()),
        [] => Err(Failure::new(failure::FAILED, "no check could be judged")),
        failed => Err(Failure::new(
            failure::FAILED,
            format!("{} of {} checks failed: {}", failed.len(), report.checks.len(), failed.join(", ")),
        )),
    }
}

/// The prompts as tokens; none where the folder has no tokenizer.
fn prompts(dir: &Path, fast: bool, console: &Console) -> Result<Vec<Prompt>, Failure> {
    if !amoeba_text::has_tokenizer(dir) {
        console.note("the folder has no tokenizer: random tokens instead of text");
        return Ok(Vec::new());
    }
    let tokenizer = Tokenizer::open(dir)?;
    let prompt = |(name, text): &(&str, &str)| {
        Ok(Prompt { name: (*name).to_owned(), tokens: tokenizer.encode(text, true)? })
    };
    PROMPTS.iter().take(if fast { 4 } else { PROMPTS.len() }).map(prompt).collect()
}

fn write(args: &Args, report: &Report) -> Result<(), Failure> {
    let put =
        |file: &Option<PathBuf>, text: String| file.as_ref().map_or(Ok(()), |file| files::write(file, &text));
    put(&args.output, report.markdown())?;
    put(&args.json, format!("{:#}\n", report.json()))
}
