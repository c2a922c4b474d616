//! `cargo xtask ci`: every check in order, timed, stopping at the first that fails.
//!
//! Nothing but a Rust toolchain and a C and C++ compiler is assumed. Tools that may be missing (nextest, deny, a second
//! target, NVRTC) have a fall-back or are skipped, and the summary says so. With `CI` set NVRTC must be there.
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a step did.
enum Outcome {
    Done(String),
    Skipped(String),
}

type Step = (&'static str, fn(&Path) -> Result<Outcome, String>);

/// Features that only benches use are linted too.
const CLIPPY: &[&str] = &[
    "clippy",
    "--workspace",
    "--all-targets",
    "--features",
    "amoeba-kernels/ladder",
    "--",
    "-D",
    "warnings",
];

const GATE: &[&str] =
    &["run", "--quiet", "-p", "amoeba", "--", "gate", "models/tiny-chat-moe-4bit", "--fast", "--no-bench"];

const STEPS: &[Step] = &[
    ("fmt", |root| cargo(root, &["fmt", "--all", "--check"])),
    ("tidy", |root| crate::tidy::run(root).map(|()| done())),
    ("clippy", |root| cargo(root, CLIPPY)),
    ("arm64", arm64),
    ("deny", deny),
    ("doc-tests", |root| counted(root, &["test", "--doc", "--workspace"])),
    ("docs", docs),
    ("size", |root| crate::size::run(root).map(|()| done())),
    ("nvrtc", nvrtc),
    // The bundled model's fast path on this machine's processor: errors, bits, answers, path, phases; no times.
    ("gate", |root| cargo(root, GATE)),
    // Last, so that the runner's own summary closes the run.
    ("tests", tests),
];

/// Runs every step and prints what each took.
pub fn run(root: &Path) -> Result<(), String> {
    let mut report = String::new();
    let whole = Instant::now();
    for (name, step) in STEPS {
        println!("\n==> {name}");
        let start = Instant::now();
        let outcome = step(root);
        let took = seconds(start.elapsed());
        match outcome {
            Ok(Outcome::Done(note)) => report += &format!("  {name:10} {took:>8}  ok{note}\n"),
            Ok(Outcome::Skipped(why)) => report += &format!("  {name:10} {took:>8}  skipped: {why}\n"),
            Err(message) => return Err(format!("{report}ci: step `{name}` failed after {took}: {message}")),
        }
    }
    println!("\n{report}ci: every step passed in {}", seconds(whole.elapsed()));
    Ok(())
}

fn done() -> Outcome {
    Outcome::Done(String::new())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The cargo that runs us.
fn command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root);
    command
}

fn cargo(root: &Path, args: &[&str]) -> Result<Outcome, String> {
    finish(command(root, args).status(), args).map(|()| done())
}

fn finish(status: std::io::Result<std::process::ExitStatus>, args: &[&str]) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`cargo {}` ended with {status}", args.join(" "))),
        Err(error) => Err(format!("`cargo {}` did not start: {error}", args.join(" "))),
    }
}

/// Whether a program runs and says what is expected.
fn answers(program: &str, args: &[&str], expected: &str) -> bool {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output();
    output.is_ok_and(|o| o.status.success() && String::from_utf8_lossy(&o.stdout).contains(expected))
}

fn tests(root: &Path) -> Result<Outcome, String> {
    if answers("cargo", &["nextest", "--version"], "nextest") {
        return cargo(root, &["nextest", "run", "--workspace"]);
    }
    println!("cargo-nextest is not installed: using `cargo test`");
    counted(root, &["test", "--workspace", "--lib", "--bins", "--tests"])
}

/// Runs `cargo test …` and adds up the result lines of its binaries.
fn counted(root: &Path, args: &[&str]) -> Result<Outcome, String> {
    let mut child = command(root, args).stdout(Stdio::piped()).spawn().map_err(|e| format!("cargo: {e}"))?;
    let mut sum = [0; 3];
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = writeln!(std::io::stdout(), "{line}");
            for (total, add) in sum.iter_mut().zip(tally(&line)) {
                *total += add;
            }
        }
    }
    let [passed, failed, ignored] = sum;
    let summary = format!("{passed} passed; {failed} failed; {ignored} ignored");
    println!("\ntest result over all binaries: {summary}");
    finish(child.wait(), args).map(|()| Outcome::Done(format!("  {summary}")))
}

/// Passed, failed and ignored of a `test result: ok. 3 passed; 0 failed; 1 ignored; …` line.
fn tally(line: &str) -> [u64; 3] {
    let Some(rest) = line.strip_prefix("test result: ") else { return [0; 3] };
    let words: Vec<&str> = rest.split([' ', ';']).filter(|w| !w.is_empty()).collect();
    ["passed", "failed", "ignored"].map(|what| {
        let number = words.iter().position(|w| *w == what).and_then(|at| words.get(at.checked_sub(1)?));
        number.and_then(|n| n.parse().ok()).unwrap_or(0)
    })
}

fn docs(root: &Path) -> Result<Outcome, String> {
    let args = ["doc", "--workspace", "--no-deps", "--quiet"];
    finish(command(root, &args).env("RUSTDOCFLAGS", "-D warnings").status(), &args).map(|()| done())
}

/// Compiles what has code of its own for aarch64; CONTRIBUTING.md says how to run it.
fn arm64(root: &Path) -> Result<Outcome, String> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    if has_library(TARGET) {
        let args = ["check", "--tests", "-p", "amoeba-kernels", "-p", "amoeba-backend", "--target", TARGET];
        return cargo(root, &args);
    }
    Ok(Outcome::Skipped(format!("the standard library of {TARGET} is not installed")))
}

/// Whether the standard library of a target is installed, by rustup or otherwise.
fn has_library(target: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", target]).output();
    output.is_ok_and(|o| o.status.success() && Path::new(String::from_utf8_lossy(&o.stdout).trim()).is_dir())
}

/// The CUDA kernels through NVRTC; a spill fails.
fn nvrtc(root: &Path) -> Result<Outcome, String> {
    Ok(match crate::nvrtc::check(root)? {
        Ok(kernels) => Outcome::Done(format!("  {kernels} kernels on three architectures")),
        Err(why) => Outcome::Skipped(why),
    })
}

/// Licences, bans and sources need no network; advisories do (`cargo deny check advisories` before a release).
fn deny(root: &Path) -> Result<Outcome, String> {
    if answers("cargo", &["deny", "--version"], "cargo-deny") {
        return cargo(root, &["deny", "check", "licenses", "bans", "sources"]);
    }
    Ok(Outcome::Skipped("cargo-deny is not installed".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let line =
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.02s";
        assert_eq!(tally(line), [12, 0, 3]);
        assert_eq!(tally("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured"), [1, 2, 0]);
        assert_eq!(tally("test a::b ... ok"), [0; 3]);
    }

    #[test]
    fn a_missing_tool_is_noticed() {
        assert!(!answers("no-such-program-here", &[], ""));
        assert!(!has_library("no-such-target-here"));
    }
}
