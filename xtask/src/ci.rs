//! `cargo xtask ci`: `test`, then `check`: every other check in order. All are timed; the first that fails
//! ends the run.
//!
//! Nothing but a Rust toolchain and a C and C++ compiler is assumed. Tools that may be missing (nextest,
//! deny, a second target, NVRTC) have a fall-back or are skipped, and the table at the end says so. With `CI`
//! set NVRTC must be there.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::command::{self, answers, cargo, finish};
use crate::{files, nvrtc, test};

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

/// The cheap ones first. What needs a build uses that of the tests.
const STEPS: &[Step] = &[
    ("fmt", |root| plain(root, &["fmt", "--all", "--check"])),
    ("tidy", |root| crate::tidy::run(root).map(|()| done())),
    ("size", |root| crate::size::run(root).map(|()| done())),
    ("deny", deny),
    ("gate", gate),
    ("doc-tests", |root| {
        plain(root, &["test", "--doc", "--workspace", "--features", "amoeba-kernels/ladder"])
    }),
    ("docs", docs),
    ("clippy", |root| plain(root, CLIPPY)),
    ("arm64", arm64),
    ("nvrtc", nvrtc),
];

/// Everything that a change must pass.
pub fn run(root: &Path) -> Result<(), String> {
    test(root)?;
    check(root)
}

/// The tests. What they gave is kept for the table of a [`check`] that follows.
pub fn test(root: &Path) -> Result<(), String> {
    let kept = kept()?;
    let _ = fs::remove_file(&kept);
    println!("==> test");
    let start = Instant::now();
    let tests = test::run(root)?;
    let line = row("test", start, "ok");
    print!("\n{}{line}", tests.details);
    println!("{}", tests.summary);
    fs::write(&kept, format!("{}{line}{}\n", tests.details, tests.summary))
        .map_err(|e| format!("{}: {e}", kept.display()))
}

/// Every check but the tests, then a table of what took how long; the last line is the tests' summary if they
/// were run.
pub fn check(root: &Path) -> Result<(), String> {
    let kept = kept()?;
    let tests = fs::read_to_string(&kept).unwrap_or_default();
    let _ = fs::remove_file(&kept);
    let mut table = String::new();
    let whole = Instant::now();
    for (name, step) in STEPS {
        println!("\n==> {name}");
        let start = Instant::now();
        match step(root) {
            Ok(Outcome::Done(note)) => table += &row(name, start, &format!("ok{note}")),
            Ok(Outcome::Skipped(why)) => table += &row(name, start, &format!("skipped: {why}")),
            Err(message) => {
                return Err(format!("{table}{}check: step `{name}`: {message}", row(name, start, "failed")));
            }
        }
    }
    table += &row("all checks", whole, "ok");
    let (details, summary) = tests.trim_end().rsplit_once('\n').unwrap_or_default();
    print!("\n{details}\n{table}");
    if summary.is_empty() {
        println!("The tests were not part of this run: `cargo xtask test`");
    } else {
        println!("{summary}");
    }
    Ok(())
}

/// Where the tests' part of the table lies until the checks are done.
fn kept() -> Result<PathBuf, String> {
    Ok(files::build_folder()?.join("xtask-tests.txt"))
}

/// A line of the table.
fn row(name: &str, start: Instant, note: &str) -> String {
    format!("  {name:10} {:>8.1} s  {note}\n", start.elapsed().as_secs_f64())
}

fn done() -> Outcome {
    Outcome::Done(String::new())
}

fn plain(root: &Path, args: &[&str]) -> Result<Outcome, String> {
    command::run(root, args).map(|()| done())
}

/// The bundled model's fast path on this machine's processor: errors, bits, answers, path, phases; no times.
/// By the binary that the tests use: another selection of packages has other features and would be another
/// build.
fn gate(root: &Path) -> Result<Outcome, String> {
    let mut build = vec!["test", "--quiet", "--no-run"];
    build.extend(test::TARGETS);
    command::run(root, &build)?;
    let binary = files::build_folder()?.join("debug/amoeba");
    let args = ["gate", "models/tiny-chat-moe-4bit", "--fast", "--no-bench"];
    match Command::new(&binary).args(args).current_dir(root).status() {
        Ok(status) if status.success() => Ok(done()),
        Ok(status) => Err(format!("`amoeba {}` ended with {status}", args.join(" "))),
        Err(error) => Err(format!("{}: {error}", binary.display())),
    }
}

fn docs(root: &Path) -> Result<Outcome, String> {
    let args = ["doc", "--workspace", "--no-deps"];
    finish(cargo(root, &args).env("RUSTDOCFLAGS", "-D warnings").status(), &args).map(|()| done())
}

/// Compiles what has code of its own for aarch64; CONTRIBUTING.md says how to run it.
fn arm64(root: &Path) -> Result<Outcome, String> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    if has_library(TARGET) {
        let args = ["check", "--tests", "-p", "amoeba-kernels", "-p", "amoeba-backend", "--target", TARGET];
        return plain(root, &args);
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
    Ok(match nvrtc::check(root)? {
        Ok(kernels) => Outcome::Done(format!("  {kernels} kernels on three architectures")),
        Err(why) => Outcome::Skipped(why),
    })
}

/// Licences, bans and sources need no network; advisories do (`cargo deny check advisories` before a
/// release).
fn deny(root: &Path) -> Result<Outcome, String> {
    if answers("cargo", &["deny", "--version"], "cargo-deny") {
        return plain(root, &["deny", "check", "licenses", "bans", "sources"]);
    }
    Ok(Outcome::Skipped("cargo-deny is not installed".to_owned()))
}
