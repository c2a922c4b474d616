//! `amoeba dump`: one buffer after one op, on any device.
use amoeba::Tokenizer;
use amoeba_harness::{DumpOptions, dump};
use serde_json::json;

use super::common::{self, DeviceArgs};
use super::console::{print, print_json};
use super::failure::Failure;

/// Flags of `dump`.
#[derive(clap::Args)]
pub struct Args {
    /// Model folder or name [default: the bundled model]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Prompt, taken as it is
    #[arg(short, long, value_name = "TEXT", default_value = "The moon")]
    prompt: String,
    /// Layer of the op
    #[arg(short, long, value_name = "N")]
    layer: Option<usize>,
    /// Op to stop after: a name, or a number as `inspect --plan` prints it
    #[arg(long, value_name = "OP")]
    stop_after: String,
    /// Buffer to print [default: the one the op writes]
    #[arg(short, long, value_name = "NAME")]
    buffer: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs and prints: a line per token.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dir = common::find_or_bundled(args.model.as_deref())?;
    let tokens = Tokenizer::open(&dir)?.encode(&args.prompt, true)?;
    if tokens.is_empty() {
        return Err(Failure::usage("the prompt is empty; give -p some text"));
    }
    let options = DumpOptions {
        layer: args.layer,
        op: args.stop_after.clone(),
        buffer: args.buffer.clone(),
        load: args.device.options(None),
    };
    let found = dump(&dir, &tokens, &options)?;
    if args.json {
        return print_json(&json!({
            "op": found.op, "name": found.name, "buffer": found.buffer, "device": found.device,
            "tokens": tokens, "rows": found.rows,
        }));
    }
    print(&format!("op {} {}: {} on {}\n", found.op, found.name, found.buffer, found.device))?;
    found.rows.iter().enumerate().try_for_each(|(row, values)| {
        let numbers: Vec<String> = values.iter().map(|x| format!("{x:.6e}")).collect();
        print(&format!("{row}: {}\n", numbers.join(" ")))
    })
}
