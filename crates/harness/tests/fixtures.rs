//! Every fixture of the repository on every device, instruction set and path.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use amoeba_engine::{Device, LoadOptions};
use amoeba_harness::{VerifyOptions, verify};
use amoeba_kernels::simd::Isa;
use amoeba_plan::PathChoice;

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|dir| dir.join("expected.json").exists());
    all.sort();
    assert!(all.len() >= 26, "{} fixtures", all.len());
    all
}

fn check(load: &LoadOptions, path: &str) {
    let mut failures = Vec::new();
    for dir in fixtures() {
        let report = verify(&dir, &VerifyOptions { load: load.clone() }).unwrap();
        for check in &report.checks {
            println!(
                "{:32} {:16} {:9.1e} used {:5.1} %",
                report.name,
                check.name,
                check.error,
                check.used() * 100.0
            );
        }
        if !report.passed() {
            failures.push(format!("{report:#?}"));
        }
        if report.family.contains("moe") || report.family == "mixtral" {
            assert!(report.paths[1].starts_with(path), "{}: {:?}", report.name, report.paths);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn reference_interpreter() {
    check(&LoadOptions { device: Device::Reference, ..LoadOptions::default() }, "unfused");
}

#[test]
fn cpu_on_every_instruction_set() {
    for isa in Isa::available() {
        check(&LoadOptions { isa: Some(isa), threads: Some(2), ..LoadOptions::default() }, "fused");
    }
}

#[test]
fn cpu_unfused() {
    check(&LoadOptions { path: PathChoice::Unfused, threads: Some(2), ..LoadOptions::default() }, "unfused");
}
