//! Breaks a fast path in every way the gate claims to notice, one at a time, and sees the right check fail.
//! No time is asserted: the doubles bring a clock of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_backend::{Executable, Limits, Reference};
use amoeba_engine::{LoadOptions, load_executable, open};
use amoeba_harness::bench::Build;
use amoeba_harness::gate::{Against, Check, GateOptions, Prompt, Report, Verdict, gate};
use amoeba_plan::{PathChoice, Plan};
use double::{Fault, Interpreted, Wrapped};

/// What takes the place of the fused path.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// The real one.
    Cpu,
    /// The real unfused one, which says it is fused.
    Fallback,
    /// The real one, with this many more phases in each step.
    MorePhases(u32),
    /// The real one, handing out the logits of the step before.
    StaleLogits,
    /// Exact maths with a fault.
    Interpreted(Fault),
    /// The real one, a step of which takes this many ns where the unfused one takes 100.
    Timed(u64),
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// What the executables of one report share.
#[derive(Default)]
struct World {
    /// ns.
    clock: Arc<AtomicU64>,
    loads: AtomicU64,
}

fn load(
    dir: &Path,
    options: &LoadOptions,
    subject: Subject,
    world: &World,
) -> Result<Box<dyn Executable>, amoeba_harness::Error> {
    let checkpoint = open(dir)?;
    let unfused = options.path == PathChoice::Unfused;
    let interpreted = |fault| -> Result<Box<dyn Executable>, amoeba_harness::Error> {
        let plan = Plan::of(&checkpoint)?;
        let limits =
            Limits { slots: options.slots, context: options.context.unwrap_or(64), rows: options.rows };
        let reference = Reference::load(plan, Arc::clone(&checkpoint), limits)?;
        let threads = options.threads.unwrap_or(2);
        let load = world.loads.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Interpreted::new(reference, fault, options.path, threads, load)))
    };
    let mut forced = options.clone();
    let inner = match subject {
        Subject::Interpreted(fault) => interpreted(if unfused { Fault::None } else { fault })?,
        _ => {
            if matches!(subject, Subject::Fallback) {
                forced.path = PathChoice::Unfused;
            }
            load_executable(&checkpoint, &forced, &mut |_, _| {})?
        }
    };
    let step_ns = match subject {
        Subject::Timed(ns) if !unfused => ns,
        _ => 100,
    };
    Ok(Box::new(Wrapped {
        inner,
        claims_fused: matches!(subject, Subject::Fallback) && !unfused,
        extra_phases: if let (Subject::MorePhases(n), false) = (subject, unfused) { n } else { 0 },
        step_ns,
        clock: Arc::clone(&world.clock),
        stale_logits: matches!(subject, Subject::StaleLogits) && !unfused,
        steps: 0,
        before: Vec::new(),
    }))
}

/// A fast judgement without prompts and times.
fn options(clock: &dyn Fn() -> u64) -> GateOptions<'_> {
    GateOptions {
        name: "fixture".to_owned(),
        build: Build::default(),
        load: LoadOptions::default(),
        against: Against::Unfused,
        prompts: Vec::new(),
        fast: true,
        bench: false,
        baseline: None,
        clock,
        progress: &|_| {},
    }
}

fn judge(subject: Subject, change: impl FnOnce(&mut GateOptions<'_>)) -> Report {
    let dir = fixture("qwen3_moe-q4g64");
    let world = World::default();
    let tokens = (0..10).map(|i| i * 37 % 500).collect();
    let now = || world.clock.load(Ordering::Relaxed);
    let mut options = GateOptions {
        load: LoadOptions { threads: Some(2), ..LoadOptions::default() },
        prompts: vec![Prompt { name: "text".to_owned(), tokens }],
        bench: true,
        ..options(&now)
    };
    change(&mut options);
    let report =
        gate(&open(&dir).unwrap(), &options, &|options| load(&dir, options, subject, &world)).unwrap();
    println!("{}", report.markdown());
    report
}

fn fast(subject: Subject) -> Report {
    judge(subject, |_| {})
}

fn find<'a>(report: &'a Report, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check `{name}`"))
}

/// Fails unless exactly these checks did.
#[track_caller]
fn only(report: &Report, failed: &[&str]) {
    assert_eq!(report.failed(), failed);
    assert_eq!(report.passed(), failed.is_empty());
}

#[test]
fn what_is_whole_passes() {
    for subject in [Subject::Cpu, Subject::Interpreted(Fault::None)] {
        let report = fast(subject);
        only(&report, &[]);
        for check in &report.checks {
            let timed = check.name.contains("time") || check.name.contains("idle");
            assert!(check.verdict == Verdict::Passed || timed, "{check:?}");
        }
        assert!(report.path.starts_with("fused"), "{}", report.path);
    }
}

#[test]
fn bf16_partials_are_an_error_of_the_experts() {
    let report = fast(Subject::Interpreted(Fault::Bf16Partials));
    let failed = report.failed();
    assert!(failed.contains(&"error: block rms") && failed.contains(&"error: op rms"), "{failed:?}");
    assert!(find(&report, "error: op rms").detail.starts_with("experts of layer"));
    // As coarse as it is, it is the same every time, and on the path asked for.
    assert!(!failed.iter().any(|name| name.starts_with("bits") || name.starts_with("path")), "{failed:?}");
    // Against another fast path it would have passed.
    assert_eq!(find(&report, "error: fused - unfused").verdict, Verdict::Passed);
}

#[test]
fn a_dropped_expert_is_an_error_of_the_experts() {
    let report = fast(Subject::Interpreted(Fault::DroppedExpert));
    for name in ["error: op rms", "error: block rms", "error: block max", "error: fused - unfused"] {
        assert!(report.failed().contains(&name), "{name}: {:?}", report.failed());
    }
    assert!(find(&report, "error: op rms").detail.starts_with("experts of layer"));
    assert!(find(&report, "parity: KL mean").measured.unwrap() > 1e-4);
}

#[test]
fn a_stale_buffer_is_an_error_and_other_bits_on_a_rerun() {
    let report = fast(Subject::Interpreted(Fault::StaleBuffer));
    for name in ["error: op rms", "error: block rms", "bits: rerun"] {
        assert!(report.failed().contains(&name), "{name}: {:?}", report.failed());
    }
    assert!(find(&report, "error: op rms").detail.starts_with("experts of layer"));
    let report = fast(Subject::StaleLogits);
    assert!(find(&report, "error: op rms").detail.starts_with("logits handed out"));
    assert!(report.failed().contains(&"parity: KL mean"), "{:?}", report.failed());
}

#[test]
fn a_fallback_is_noticed_whether_it_is_reported_or_not() {
    only(&fast(Subject::Fallback), &["path: what ran"]);
    let report = judge(Subject::Cpu, |options| options.load.path = PathChoice::Unfused);
    only(&report, &["path: guard", "path: what ran"]);
}

#[test]
fn bits_that_depend_on_circumstances_are_noticed() {
    only(&fast(Subject::Interpreted(Fault::Threads)), &["bits: threads"]);
    let failed = |fault| fast(Subject::Interpreted(fault)).failed();
    assert!(failed(Fault::Garbage).contains(&"bits: allocator churn"));
    assert!(failed(Fault::Steps).contains(&"bits: rerun"));
    only(&fast(Subject::Interpreted(Fault::Rows)), &["bits: chunks"]);
    only(&fast(Subject::Interpreted(Fault::Company)), &["bits: company"]);
}

#[test]
fn more_phases_and_more_bytes_are_noticed() {
    only(&fast(Subject::MorePhases(100)), &["trace: phases"]);
    assert!(fast(Subject::Interpreted(Fault::ReadsTwice)).failed().contains(&"trace: bytes"));
}

#[test]
fn a_slower_path_fails_where_times_are_judged() {
    // Idle time is judged too, and is the machine's.
    let report = judge(Subject::Timed(130), |options| options.fast = false);
    assert!(report.failed().contains(&"speed: fused / unfused time"), "{:?}", report.failed());
    // With --fast it is only reported.
    let report = fast(Subject::Timed(130));
    only(&report, &[]);
    assert_eq!(find(&report, "speed: fused / unfused time").measured, Some(1.3));
}

#[test]
fn the_report_reads_the_same_for_people_and_programs() {
    let report = judge(Subject::Interpreted(Fault::DroppedExpert), |options| options.bench = false);
    let (text, json) = (report.markdown(), report.json());
    assert_eq!(json["passed"], false);
    assert_eq!(json["checks"].as_array().unwrap().len(), report.checks.len());
    for check in &report.checks {
        assert!(text.contains(&format!("| {} | {} |", check.name, check.verdict)), "{}\n{text}", check.name);
    }
    assert_eq!(find(&report, "speed: fused / unfused time").verdict, Verdict::Skipped);
    assert!(text.lines().count() < 60, "one page:\n{text}");
}

#[test]
fn models_without_experts_are_judged_op_by_op() {
    let dir = fixture("llama-q4g64");
    let checkpoint = open(&dir).unwrap();
    let options = options(&|| 0);
    let loader = |load: &LoadOptions| Ok(load_executable(&checkpoint, load, &mut |_, _| {})?);
    let report = gate(&checkpoint, &options, &loader).unwrap();
    println!("{}", report.markdown());
    only(&report, &[]);
    for name in ["error: op rms", "bits: threads", "parity: greedy, reference"] {
        assert_eq!(find(&report, name).verdict, Verdict::Passed, "{name}");
    }
    assert_eq!(find(&report, "path: guard").verdict, Verdict::Skipped);
}
