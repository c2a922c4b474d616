//! The host's part on the fake device: what is launched how often, what fails how.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use allocations::allocations;
use amoeba_backend::{DeviceSampler, Executable, Limits, LoadOptions, Row};
use amoeba_backend_cuda::{Cuda, Error};
use amoeba_kernels::sample::Sampling;
use fake_cuda::{Fake, on_fake};

#[path = "../../../../tests/support/allocations.rs"]
mod allocations;
#[path = "../common/mod.rs"]
mod common;
#[path = "../fake_cuda/mod.rs"]
mod fake_cuda;
mod refusals;

const MODEL: &str = "qwen3_moe-q4g64";

fn options(kernels: PathBuf) -> LoadOptions {
    common::options(Limits { slots: 1, context: 64, rows: 20 }, kernels)
}

fn load_with(options: &LoadOptions) -> Result<Cuda, Error> {
    let (mut last, mut whole) = (0, 0);
    let loaded = common::load(MODEL, options, &mut |done, total| {
        assert!(done > last && done <= total);
        (last, whole) = (done, total);
    });
    assert_eq!(last, whole, "progress ends at the whole");
    loaded
}

fn load() -> Cuda {
    load_with(&options(Fake::build().kernels)).unwrap()
}

fn row(position: usize) -> Row {
    Row { token: 5 + position as u32, slot: 0, position, logits: true }
}

fn rows(positions: std::ops::Range<usize>) -> Vec<Row> {
    positions.map(row).collect()
}

/// What the driver was asked to do while `f` ran: lines of its log.
fn log(f: impl FnOnce()) -> Vec<String> {
    let path = std::env::var("FAKE_CUDA_LOG").unwrap();
    let before = std::fs::read_to_string(&path).unwrap_or_default().lines().count();
    f();
    let after = std::fs::read_to_string(&path).unwrap_or_default();
    after.lines().skip(before).map(str::to_owned).collect()
}

fn scratch(name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    path.to_str().unwrap().to_owned()
}

#[test]
fn decode_allocates_nothing() {
    on_fake("decode_allocates_nothing", &[], || {
        let mut cuda = load();
        cuda.step(&rows(0..8), None).unwrap();
        let step = |position| cuda.step(&[row(position)], None).unwrap();
        let before = allocations();
        (8..24).for_each(step);
        assert_eq!(allocations() - before, 0);
        // Nor where the device draws.
        cuda.begin(0, &Sampling { repeat_penalty: 1.1, ..Sampling::default() }, &[1; 24]).unwrap();
        cuda.enqueue(&[Row { token: 1, slot: 0, position: 23, logits: true }]).unwrap();
        cuda.take().unwrap();
        let mut draw = || {
            cuda.enqueue_next().unwrap();
            cuda.take().unwrap()[0].token
        };
        draw(); // captures
        let before = allocations();
        (0..16).for_each(|_| assert!(draw() < 1 << 20));
        assert_eq!(allocations() - before, 0);
        // Nor where it is recorded.
        cuda.record(1).unwrap();
        let mut step = |position| cuda.step(&[row(position)], None).unwrap();
        step(24); // compiles and captures
        let before = allocations();
        step(25);
        assert_eq!(allocations() - before, 0);
    });
}

fn all_logits(cuda: &Cuda, rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|n| cuda.logits(n).to_vec()).collect()
}

/// The token of greatest logit, and then of each step that draws.
#[test]
fn a_step_that_draws_is_one_graph_that_copies_nothing() {
    let path = scratch("draws");
    let name = "a_step_that_draws_is_one_graph_that_copies_nothing";
    on_fake(name, &[("FAKE_CUDA_LOG", &path)], || {
        let mut cuda = load();
        let mut expected = vec![5];
        for position in 0..6 {
            cuda.step(&[Row { token: expected[position], ..row(position) }], None).unwrap();
            let logits = cuda.logits(0).iter().enumerate();
            expected.push(logits.max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32);
        }
        cuda.begin(0, &Sampling::greedy(), &[5]).unwrap();
        cuda.enqueue(&[row(0)]).unwrap();
        for expected in &expected[1..] {
            // One step ahead. The graph logs itself, then each of its launches; a copy would be counted
            // alone.
            let lines = log(|| cuda.enqueue_next().unwrap());
            assert_eq!(lines[0], format!("graph {}", lines.len() - 1));
            assert_eq!(cuda.take().unwrap()[0].checked(0).unwrap(), *expected);
        }
    });
    let _ = std::fs::remove_file(path);
}

#[test]
fn launches_overlap_where_the_device_can_do_it_but_not_with_copies() {
    let path = scratch("overlap");
    let name = "launches_overlap_where_the_device_can_do_it_but_not_with_copies";
    on_fake(name, &[("FAKE_CUDA_LOG", &path)], || {
        let logits = [true, false].map(|overlap| {
            let options = LoadOptions { overlap: Some(overlap), ..options(Fake::build().kernels) };
            let mut cuda = load_with(&options).unwrap();
            assert_eq!(cuda.describe().contains("overlapping launches"), overlap);
            for step in [&rows(0..9), &rows(9..10)] {
                let lines = log(|| cuda.step(step, None).unwrap());
                let launches: Vec<&String> = lines.iter().filter(|line| line.starts_with("launch")).collect();
                let after = launches.iter().filter(|line| line.ends_with("overlapping")).count();
                assert_eq!(after, if overlap { launches.len() - 1 } else { 0 });
                assert!(!launches[0].ends_with("overlapping"), "behind the copy of the step");
            }
            all_logits(&cuda, 1)
        });
        assert!(logits[0] == logits[1]);
    });
    let _ = std::fs::remove_file(path);
}

#[test]
fn an_older_device_is_not_asked_to_overlap() {
    on_fake("an_older_device_is_not_asked_to_overlap", &[("FAKE_CUDA_MAJOR", "8")], || {
        let mut cuda = load();
        assert!(!cuda.describe().contains("overlapping"), "{}", cuda.describe());
        cuda.step(&rows(0..9), None).unwrap(); // the driver refuses what this device cannot do
        cuda.step(&rows(9..10), None).unwrap();
    });
}

#[test]
fn kernels_are_compiled_once_and_damaged_ones_again() {
    let (path, kernels) = (scratch("compiled"), scratch("kernels"));
    let settings = [("FAKE_NVRTC_LOG", &*path), ("TEST_KERNELS", &kernels)];
    on_fake("kernels_are_compiled_once_and_damaged_ones_again", &settings, || {
        let [path, kernels] = ["FAKE_NVRTC_LOG", "TEST_KERNELS"].map(|name| std::env::var(name).unwrap());
        let compiled = || std::fs::read_to_string(&path).unwrap_or_default().lines().count();
        let options = options(kernels.clone().into());
        load_with(&options).unwrap();
        let first = compiled();
        let files = || std::fs::read_dir(&kernels).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(files().count(), first, "each unit once");
        load_with(&options).unwrap();
        assert_eq!(compiled(), first);
        let damaged = files().next().unwrap();
        let mut bytes = std::fs::read(&damaged).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(damaged, bytes).unwrap();
        load_with(&options).unwrap();
        assert_eq!(compiled(), first + 1);
    });
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir_all(kernels);
}
