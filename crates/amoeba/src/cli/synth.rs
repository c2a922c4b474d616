//! `amoeba synth`: a checkpoint of a given shape with random weights, for measuring.
use std::path::PathBuf;

use amoeba_harness::synth;

use super::console::Console;
use super::failure::Failure;

/// Flags of `synth`.
#[derive(clap::Args)]
pub struct Args {
    /// Shape and format, as in `small`, `a3b:8`, `a3b:2:mxfp4`
    #[arg(value_name = "SPEC")]
    spec: String,
    /// Folder to write
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the folder.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let mut bar = console.animated().then(|| super::common::bytes_bar("writing", 0));
    synth(&args.spec, &args.dir, &mut |done, total| {
        if let Some(bar) = &mut bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    })
    .map_err(|error| Failure::usage(error.to_string()))
}
