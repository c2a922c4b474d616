//! `amoeba perplexity`: how surprised a model is by a text.
use std::path::PathBuf;

use amoeba::Tokenizer;
use amoeba_harness::perplexity;
use serde_json::json;

use super::common::{self, DeviceArgs};
use super::console::{print, print_json};
use super::failure::Failure;

/// Flags of `perplexity`.
#[derive(clap::Args)]
pub struct Args {
    /// Model; the bundled one unless told
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// The text
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens per window; windows do not overlap
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dir = common::find_or_bundled(args.model.as_deref())?;
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", args.file.display())))?;
    let tokens = Tokenizer::open(&dir)?.encode(&text, false)?;
    let found = perplexity(&dir, &tokens, args.window as usize, &args.device.options(None))?;
    if args.json {
        return print_json(
            &json!({ "perplexity": found.value, "tokens": found.tokens, "window": args.window }),
        );
    }
    print(&format!(
        "perplexity {:.4} over {} tokens, windows of {}\n",
        found.value, found.tokens, args.window
    ))
}
