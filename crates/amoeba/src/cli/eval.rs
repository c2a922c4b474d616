//! `amoeba eval`: how surprised a model is by a text, and how far it is from recorded logits.
use std::path::PathBuf;

use amoeba::{LoadOptions, Tokenizer};
use amoeba_harness::eval::{EvalOptions, Evaluation, Precision, Record, eval, eval_against};
use clap::ValueEnum;
use serde_json::json;

use super::common::{self, DeviceArgs};
use super::console::{self, Console, print, print_json};
use super::failure::Failure;

/// Flags of `eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Model folder or name [default: the bundled model]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// The text; perplexity counts every token but the first
    #[arg(short, long, value_name = "FILE", required_unless_present = "against")]
    file: Option<PathBuf>,
    /// Use only the first tokens of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    tokens: Option<u32>,
    /// Tokens per window; windows do not overlap
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Most rows of a step; few take the fused path
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Keep the logits in a file: vocabulary × 2 bytes per token (4 as f32)
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// What --record keeps logits as
    #[arg(long, value_name = "TYPE", value_enum, default_value_t, requires = "record")]
    record_type: Type,
    /// Hold the model against a file of --record: its text, its windows
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "record", "tokens", "window"])]
    against: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Type {
    /// Half precision of the distance to the likeliest token
    #[default]
    F16,
    /// As computed
    F32,
}

/// Measures and prints.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let dir = common::find_or_bundled(args.model.as_deref())?;
    let load = LoadOptions { rows: args.rows as usize, ..args.device.options(None) };
    let found = match (&args.against, &args.file) {
        (Some(record), _) => eval_against(&dir, &mut Record::open(record)?, &load)?,
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
            let mut tokens = Tokenizer::open(&dir)?.encode(&text, false)?;
            tokens.truncate(args.tokens.map_or(usize::MAX, |n| n as usize));
            let precision = if args.record_type == Type::F32 { Precision::F32 } else { Precision::F16 };
            let record = args.record.clone().map(|file| (file, precision));
            let found = eval(&dir, &tokens, &EvalOptions { window: args.window as usize, load, record })?;
            if let Some(file) = &args.record {
                let size = std::fs::metadata(file).map_or(0, |meta| meta.len());
                console.note(&format!("{}: {} recorded", file.display(), console::bytes(size)));
            }
            found
        }
        (None, None) => return Err(Failure::usage("name a text with --file, or a record with --against")),
    };
    if args.json { print_json(&as_json(&found)) } else { print(&as_text(&found)) }
}

fn as_text(found: &Evaluation) -> String {
    let mut text = format!(
        "perplexity {:.4} over {} tokens, windows of {}, on {}, {}\n",
        found.perplexity, found.tokens, found.window, found.device, found.path
    );
    if let Some(distance) = &found.distance {
        text += &format!(
            "recorded {:.4} by model {}\nKL mean {:.2e}, median {:.2e}, 99 % below {:.2e}, max {:.2e} after \
             token {} (nats)\n\
             same likeliest token {:.2} %\n",
            distance.perplexity,
            if distance.model == found.model { "the same" } else { &distance.model },
            distance.mean,
            distance.median,
            distance.p99,
            distance.max,
            distance.max_at,
            distance.same_top * 100.0
        );
    }
    text
}

fn as_json(found: &Evaluation) -> serde_json::Value {
    let distance = found.distance.as_ref().map(|distance| {
        json!({
            "model_hash": distance.model, "perplexity": distance.perplexity,
            "kl_mean": distance.mean, "kl_median": distance.median, "kl_p99": distance.p99,
            "kl_max": distance.max, "kl_max_at": distance.max_at, "same_top": distance.same_top,
        })
    });
    json!({
        "perplexity": found.perplexity, "tokens": found.tokens, "window": found.window,
        "device": found.device, "path": found.path, "model_hash": found.model, "recorded": distance,
    })
}
