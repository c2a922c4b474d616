//! Bakes commit, state of the sources and compiler into the binary, where there is git.
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    // Without optional locks: a build must not get in the way of somebody's commit.
    let state = [
        "--no-optional-locks",
        "status",
        "--porcelain",
        "--",
        ":(top,glob)crates/*/src/**",
        ":(top)Cargo.lock",
    ];
    let dirty = !commit.is_empty() && output("git", &state).is_some_and(|changes| !changes.is_empty());
    let version = match commit.as_str() {
        "" => env!("CARGO_PKG_VERSION").to_owned(),
        commit => format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
    };
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    println!("cargo:rustc-env=AMOEBA_VERSION={version}");
    println!("cargo:rustc-env=AMOEBA_COMMIT={commit}");
    println!("cargo:rustc-env=AMOEBA_DIRTY={dirty}");
    println!("cargo:rustc-env=AMOEBA_RUSTC={}", rustc.unwrap_or_default());
    println!("cargo:rerun-if-changed=build.rs");
    // The log grows with every commit; a change to any source may make them differ from it.
    for path in [PathBuf::from("../../.git/logs/HEAD"), PathBuf::from("../../Cargo.lock")]
        .into_iter()
        .chain(sources())
    {
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}

/// What a program prints; `None` where it cannot be run or fails.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The source folders of all crates.
fn sources() -> Vec<PathBuf> {
    let crates = std::fs::read_dir(Path::new("..")).into_iter().flatten().flatten();
    crates.map(|entry| entry.path().join("src")).collect()
}
