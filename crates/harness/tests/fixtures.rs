//! Every fixture of the repository on every device, instruction set and path.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use amoeba_checkpoint::{Checkpoint, Config};
use amoeba_engine::{Device, LoadOptions};
use amoeba_harness::{VerifyOptions, verify};
use amoeba_kernels::simd::Isa;
use amoeba_plan::PathChoice;

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|dir| dir.join("expected.json").exists());
    all.sort();
    assert!(all.len() >= 67, "{} fixtures", all.len());
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

/// mlx-lm computed the results with weights that `fixtures/seeded.py` made: the same bytes as here.
#[test]
fn weights_from_seeds_are_those_of_the_script() {
    let mut seen = 0;
    for dir in fixtures() {
        if !dir.join("model.seeded.json").exists() {
            continue;
        }
        let model = Checkpoint::open(&dir).unwrap();
        let mut tensors: Vec<_> = model.index().iter().collect();
        tensors.sort_by_key(|tensor| tensor.range.start);
        let bytes = tensors.iter().flat_map(|tensor| model.tensor(tensor.name).unwrap().bytes);
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let hash = format!("{:016x}", bytes.fold(0xcbf2_9ce4_8422_2325, fnv));
        let expected = Config::read(&dir, "expected.json").unwrap().unwrap();
        assert_eq!(expected.str("weights").unwrap(), Some(&*hash), "{}", dir.display());
        let size: u64 =
            std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 100_000, "{}: {size} bytes, at most 100000 are allowed", dir.display());
        seen += 1;
    }
    assert!(seen >= 60, "{seen} fixtures with weights from a seed");
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
