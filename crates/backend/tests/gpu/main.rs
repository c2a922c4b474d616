//! A model on a GPU above any driver: what is launched how often, what is seen, recorded and drawn. The
//! driver here runs the kernels in emulation; what CUDA's adds is tested with it.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use amoeba_backend::{Buffers, DeviceSampler, Executable, Flow, Limits, LoadOptions, Probe, Row, Stage, gpu};
use amoeba_kernels::sample::Sampling;
use amoeba_plan::{Op, PathChoice};
use host::{HostDriver, Log, OnHost};

#[path = "../common/mod.rs"]
mod common;
mod host;
mod models;
#[path = "../../../kernels/tests/cuda_emulation/module.rs"]
mod module;
mod sampling;

/// The kernels' tests can run on a device instead.
mod device {
    use amoeba_kernels::gpu::Call;

    pub fn chosen() -> bool {
        false
    }

    pub fn launch(_: &Call) -> bool {
        false
    }
}

const MODEL: &str = "qwen3_moe-q4g64";
const LIMITS: Limits = Limits { slots: 1, context: 64, rows: 20 };

fn load(path: PathChoice) -> Option<(OnHost, Log)> {
    host::load(MODEL, &LoadOptions { path, ..LoadOptions::sized(LIMITS) })
}

fn layers(gpu: &OnHost) -> usize {
    gpu.plan().program.iter().filter(|step| matches!(step.op, Op::Experts(_))).count()
}

fn row(position: usize) -> Row {
    Row { token: 5 + position as u32, slot: 0, position, logits: true }
}

fn rows(positions: std::ops::Range<usize>) -> Vec<Row> {
    positions.map(row).collect()
}

/// What the driver was asked to do while `f` ran.
fn ran(log: &Log, f: impl FnOnce()) -> Vec<String> {
    log.lock().unwrap().clear();
    f();
    log.lock().unwrap().clone()
}

/// Sees all ops, of launches as a step runs them or each op alone; stops after one.
struct Looks {
    as_run: bool,
    seen: usize,
    stop: usize,
}

impl Looks {
    fn new(as_run: bool) -> Looks {
        Looks { as_run, seen: 0, stop: usize::MAX }
    }
}

impl Probe for Looks {
    fn wants(&self, _op: usize) -> bool {
        true
    }
    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow {
        assert_eq!(op, self.seen, "each op once, in order");
        assert!(buffers.row(amoeba_plan::BufferId(0), 0).iter().all(|x| x.is_finite()));
        self.seen += 1;
        if op == self.stop { Flow::Stop } else { Flow::Continue }
    }
    fn as_run(&self) -> bool {
        self.as_run
    }
}

fn all_logits(gpu: &OnHost, rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|n| gpu.logits(n).to_vec()).collect()
}

#[test]
fn short_steps_are_one_graph_and_long_ones_are_launches() {
    let Some((mut gpu, log)) = load(PathChoice::Auto) else { return };
    for (count, at) in [(1, 0), (1, 1), (3, 2), (4, 5), (8, 9)] {
        let lines = ran(&log, || gpu.step(&rows(at..at + count), None).unwrap());
        let graphs: Vec<&String> = lines.iter().filter(|line| line.starts_with("graph")).collect();
        assert_eq!(graphs.len(), 1, "{count} rows: {lines:?}");
        // The graph logs itself, then each of its launches.
        assert_eq!(*graphs[0], format!("graph {}", lines.len() - 1), "{count} rows");
        assert!(gpu.path(count).to_string().starts_with("fused"));
    }
    let lines = ran(&log, || gpu.step(&rows(17..26), None).unwrap());
    assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with("launch")), "{lines:?}");
    let quiet: Vec<Row> = rows(26..35).into_iter().map(|row| Row { logits: false, ..row }).collect();
    let without = ran(&log, || gpu.step(&quiet, None).unwrap());
    assert!(without.len() < lines.len(), "no logits, no head");
}

#[test]
fn a_step_gives_the_same_bits_as_a_graph_launch_by_launch_and_in_company() {
    let Some((mut gpu, _)) = load(PathChoice::Auto) else { return };
    let prompt = rows(0..5);
    gpu.step(&prompt, None).unwrap();
    let logits = all_logits(&gpu, 5);
    assert!(logits.iter().all(|x| x.is_finite()) && logits.iter().any(|x| *x != logits[0]));
    for as_run in [true, false] {
        let mut looks = Looks::new(as_run);
        gpu.step(&prompt, Some(&mut looks)).unwrap();
        assert_eq!(looks.seen, gpu.plan().program.len());
        // Where ops do not share launches, sums are made in another order.
        let allowed = if as_run { 0.0 } else { 1e-4 };
        let again = all_logits(&gpu, 5);
        assert!(again.iter().zip(&logits).all(|(a, b)| (a - b).abs() <= allowed), "as run: {as_run}");
    }
    // Only some rows want logits: they come compacted, in order.
    let some: Vec<Row> = prompt.iter().map(|row| Row { logits: row.position % 2 == 1, ..*row }).collect();
    gpu.step(&some, None).unwrap();
    let vocab = gpu.plan().spec.vocab;
    for n in 0..2 {
        assert!(gpu.logits(n) == &logits[(2 * n + 1) * vocab..][..vocab], "wanted row {n}");
    }
    let mut stops = Looks { stop: 3, ..Looks::new(false) };
    gpu.step(&prompt, Some(&mut stops)).unwrap();
    assert_eq!(stops.seen, 4);
    gpu.step(&prompt, None).unwrap();
    assert!(gpu.logits(0) == &logits[..vocab], "after a stopped step");
}

#[test]
fn what_ran_is_seen_in_its_launches() {
    let Some((gpu, log)) = load(PathChoice::Auto) else { return };
    let Some((unfused, log_unfused)) = load(PathChoice::Unfused) else { return };
    let (mut gpu, mut unfused) = ((gpu, log), (unfused, log_unfused));
    assert!(gpu.0.path(1).to_string().starts_with("fused"));
    assert!(unfused.0.path(1).to_string().starts_with("unfused"));
    let launches = |lines: Vec<String>| lines.iter().filter(|line| line.starts_with("launch")).count();
    let run = |(gpu, log): &mut (OnHost, Log)| launches(ran(log, || gpu.step(&[row(0)], None).unwrap()));
    let probed = |(gpu, log): &mut (OnHost, Log), as_run| {
        launches(ran(log, || gpu.step(&[row(0)], Some(&mut Looks::new(as_run))).unwrap()))
    };
    let (few, many) = (run(&mut gpu), run(&mut unfused));
    assert!(2 * few <= many + layers(&gpu.0), "ops share launches: {few} and {many}");
    assert!(many >= gpu.0.plan().program.len(), "a launch for every op at least");
    assert_eq!([probed(&mut gpu, true), probed(&mut unfused, true)], [few, many]);
    assert_eq!(probed(&mut unfused, false), many, "it is plain already");
    assert!(probed(&mut gpu, false) > few, "each op alone");
    let counted = gpu.0.phases().unwrap();
    gpu.0.step(&[row(0)], None).unwrap();
    assert_eq!(gpu.0.phases().unwrap() - counted, few as u32);
}

#[test]
fn a_recorded_step_tells_every_launch_and_changes_no_bit() {
    let Some((mut gpu, _)) = load(PathChoice::Auto) else { return };
    assert!(gpu.recorded().is_err());
    for step in [rows(0..1), rows(0..5), rows(0..11)] {
        gpu.step(&step, None).unwrap();
        let plain = all_logits(&gpu, step.len());
        gpu.record(1).unwrap();
        gpu.step(&step, None).unwrap(); // made ready
        let before = gpu.phases().unwrap();
        gpu.step(&step, None).unwrap();
        let launches = gpu.phases().unwrap() - before;
        assert!(all_logits(&gpu, step.len()) == plain, "{} rows", step.len());
        let recording = gpu.recorded().unwrap();
        let [lane] = &recording.lanes[..] else { panic!("one lane") };
        assert_eq!(lane.len(), launches as usize + 1, "every launch, and the check");
        assert!(lane.windows(2).all(|two| two[0].start <= two[0].end && two[0].end <= two[1].start));
        assert!(lane.last().is_some_and(|last| last.end == recording.ns));
        let covered: Vec<usize> = lane.iter().flat_map(|span| span.ops()).collect();
        assert!((0..gpu.plan().program.len()).all(|op| covered.contains(&op)), "every op");
        assert!(lane.iter().filter(|span| span.end > span.start).count() > lane.len() / 2);
        let stages = |stage| lane.iter().filter(|span| span.stage == stage).count();
        let [fused, unfused] =
            [[Stage::FusedUp, Stage::FusedDown], [Stage::GateUp, Stage::Down]].map(|two| two.map(stages));
        let layers = layers(&gpu);
        assert_eq!(if step.len() > 8 { [unfused, fused] } else { [fused, unfused] }, [[layers; 2], [0; 2]]);
        gpu.step(&step, Some(&mut Looks::new(true))).unwrap();
        assert!(gpu.recorded().is_err(), "it was probed");
        gpu.record(0).unwrap();
        gpu.step(&step, None).unwrap();
        assert!(gpu.recorded().is_err());
    }
}

#[test]
fn what_fails_or_does_not_fit_is_an_error_with_the_device() {
    if !module::available() {
        return;
    }
    let options = LoadOptions::sized(LIMITS);
    let small = HostDriver { bytes: 300_000, ..HostDriver::default() };
    match host::load_on(small, MODEL, &options).map(|_| ()) {
        Err(error @ gpu::Error::NoFit { .. }) => assert!(error.to_string().contains("on host:0 (emulation)")),
        other => panic!("{other:?}"),
    }
    let fails = HostDriver { bytes: 4 << 30, fails: Some("attention_one"), ..HostDriver::default() };
    let mut gpu = host::load_on(fails, MODEL, &options).unwrap();
    gpu.begin(0, &Sampling::greedy(), &[5]).unwrap();
    for failed in [gpu.step(&[row(0)], None), gpu.enqueue(&[row(0)])] {
        let said = failed.unwrap_err().to_string();
        assert!(said.contains("host:0 (emulation)") && said.contains("it was to fail"), "{said}");
    }
}
