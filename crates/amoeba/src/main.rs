//! The `amoeba` program. Everything it does is under `cli/`, one file or folder per verb.
mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
