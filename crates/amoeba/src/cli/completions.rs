//! `amoeba completions SHELL`.
use clap::CommandFactory;
use clap_complete::Shell;

use super::console::print;
use super::failure::Failure;

/// Flags of `completions`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell that is to complete
    #[arg(value_parser = clap::value_parser!(Shell))]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "amoeba", &mut script);
    print(&String::from_utf8_lossy(&script))
}
