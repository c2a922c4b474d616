//! Bakes the commit into the binary, where there is git.
use std::path::Path;
use std::process::Command;

fn main() {
    let git = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = git.ok().filter(|out| out.status.success()).map(|out| out.stdout);
    let commit = commit.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    let version = match commit.trim() {
        "" => env!("CARGO_PKG_VERSION").to_owned(),
        commit => format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
    };
    println!("cargo:rustc-env=AMOEBA_VERSION={version}");
    println!("cargo:rerun-if-changed=build.rs");
    let log = Path::new("../../.git/logs/HEAD"); // grows with every commit
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
}
