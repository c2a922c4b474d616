//! Calls of cargo and of other programs.
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// The cargo that runs us, with `args`, at the root.
pub fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root);
    command
}

/// Runs cargo to its end.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    finish(cargo(root, args).status(), args)
}

/// An error unless cargo ended well.
pub fn finish(status: std::io::Result<ExitStatus>, args: &[&str]) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`cargo {}` ended with {status}", args.join(" "))),
        Err(error) => Err(format!("`cargo {}` did not start: {error}", args.join(" "))),
    }
}

/// Whether a program runs and says what is expected.
pub fn answers(program: &str, args: &[&str], expected: &str) -> bool {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output();
    output.is_ok_and(|o| o.status.success() && String::from_utf8_lossy(&o.stdout).contains(expected))
}
