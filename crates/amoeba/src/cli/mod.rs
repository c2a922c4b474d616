//! Verbs and global flags. A verb is a file here with an `Args` struct and a `run` function.
mod bench;
mod chat;
mod common;
mod completions;
mod console;
mod device_floor;
mod doctor;
mod dump;
mod eval;
mod failure;
mod files;
mod gate;
mod inspect;
mod interrupt;
mod memory;
mod plot;
mod pull;
mod render;
mod repl;
mod run;
mod synth;
mod system;
mod trace;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use console::Console;

const EXAMPLES: &str = "\
Examples:
  amoeba run \"Tell me about the moon.\"             one answer from the bundled model
  amoeba run                                       a chat with it
  amoeba pull mlx-community/Qwen3-30B-A3B-4bit     download a model, then:
  amoeba run mlx-community/Qwen3-30B-A3B-4bit \"Hi\"
  git diff | amoeba run ./my-model \"Review this:\" -p -
  amoeba inspect ./my-model                        what it is and whether it fits

Exit codes:
  0 done   1 failed, or verify, gate or trace --check found a difference   2 wrong usage   3 model not found
  4 does not fit in memory   5 device failed   6 damaged or unsupported model files   130 interrupted

Environment: AMOEBA_MODELS, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, NO_COLOR";

/// Runs MLX-quantised mixture-of-experts language models.
#[derive(Parser)]
#[command(name = "amoeba", version = env!("AMOEBA_VERSION"), after_help = EXAMPLES)]
#[command(arg_required_else_help = true)]
struct Cli {
    /// No statistics, notes or progress
    #[arg(short, long, global = true, display_order = 900)]
    quiet: bool,
    /// No colours; as with NO_COLOR in the environment
    #[arg(long, visible_alias = "no-colour", global = true, display_order = 900)]
    no_color: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer a prompt, or chat when there is none
    Run(Box<run::Args>),
    /// Show what a model is, what it costs per token, and whether it fits
    Inspect(inspect::Args),
    /// Show the prompt that a chat becomes
    Render(render::Args),
    /// Download a model into the Hugging Face cache
    Pull(pull::Args),
    /// List the models in the Hugging Face cache
    #[command(visible_alias = "ls")]
    List(pull::ListArgs),
    /// Compare model folders with their recorded results
    Verify(verify::Args),
    /// Judge the fast path of a model: errors, bits, answers, speed, proof of path
    Gate(Box<gate::Args>),
    /// Measure how well a model predicts a text, or how far it is from recorded logits
    #[command(alias = "perplexity")]
    Eval(Box<eval::Args>),
    /// Measure prefill and decode speed
    Bench(Box<bench::Args>),
    /// Record what every worker does during a decode token
    Trace(Box<trace::Args>),
    /// Write a checkpoint with random weights, for measuring
    #[command(hide = true)]
    Synth(synth::Args),
    /// Run a prompt up to one op and print a buffer
    Dump(dump::Args),
    /// Report on this machine and this program
    Doctor(doctor::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// Parses the command line and runs the verb.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let console = Console::new(cli.quiet, cli.no_color);
    let outcome = match &cli.verb {
        Verb::Run(args) => run::run(args, &console),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Render(args) => render::run(args),
        Verb::Pull(args) => pull::run(args, &console),
        Verb::List(args) => pull::list(args),
        Verb::Verify(args) => verify::run(args, &console),
        Verb::Gate(args) => gate::run(args, &console),
        Verb::Eval(args) => eval::run(args, &console),
        Verb::Bench(args) => bench::run(args, &console),
        Verb::Trace(args) => trace::run(args, &console),
        Verb::Synth(args) => synth::run(args, &console),
        Verb::Dump(args) => dump::run(args),
        Verb::Doctor(args) => doctor::run(args),
        Verb::Completions(args) => completions::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            console.error(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
