//! The host's part on the fake device: what is launched how often, what fails how.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use allocations::allocations;
use amoeba_backend::{Buffers, DeviceSampler, Executable, Flow, Limits, LoadOptions, Probe, Row, Stage};
use amoeba_backend_cuda::{Cuda, Error};
use amoeba_kernels::sample::Sampling;
use amoeba_plan::{Op, PathChoice};
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

fn layers(cuda: &Cuda) -> usize {
    cuda.plan().program.iter().filter(|step| matches!(step.op, Op::Experts(_))).count()
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
    });
}

#[test]
fn short_steps_are_one_graph_and_long_ones_are_launches() {
    let path = scratch("log");
    on_fake("short_steps_are_one_graph_and_long_ones_are_launches", &[("FAKE_CUDA_LOG", &path)], || {
        let mut cuda = load();
        for (count, at) in [(1, 0), (1, 1), (3, 2), (4, 5), (8, 9)] {
            let lines = log(|| cuda.step(&rows(at..at + count), None).unwrap());
            let graphs: Vec<&String> = lines.iter().filter(|line| line.starts_with("graph")).collect();
            assert_eq!(graphs.len(), 1, "{count} rows: {lines:?}");
            // The graph logs itself, then each of its launches; the copy of the step is no launch.
            assert_eq!(*graphs[0], format!("graph {}", lines.len()), "{count} rows");
            assert!(cuda.path(count).to_string().starts_with("fused"));
        }
        let lines = log(|| cuda.step(&rows(17..26), None).unwrap());
        assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with("launch")), "{lines:?}");
        let quiet: Vec<Row> = rows(26..35).into_iter().map(|row| Row { logits: false, ..row }).collect();
        let without = log(|| cuda.step(&quiet, None).unwrap());
        assert!(without.len() < lines.len(), "no logits, no head");
    });
    let _ = std::fs::remove_file(path);
}

/// Sees all ops, of launches as a step runs them or each op alone; stops behind one.
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

fn all_logits(cuda: &Cuda, rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|n| cuda.logits(n).to_vec()).collect()
}

#[test]
fn a_step_gives_the_same_bits_as_a_graph_launch_by_launch_and_in_company() {
    let name = "a_step_gives_the_same_bits_as_a_graph_launch_by_launch_and_in_company";
    on_fake(name, &[], || {
        let mut cuda = load();
        let prompt = rows(0..5);
        cuda.step(&prompt, None).unwrap();
        let logits = all_logits(&cuda, 5);
        assert!(logits.iter().all(|x| x.is_finite()) && logits.iter().any(|x| *x != logits[0]));
        for as_run in [true, false] {
            let mut looks = Looks::new(as_run);
            cuda.step(&prompt, Some(&mut looks)).unwrap();
            assert_eq!(looks.seen, cuda.plan().program.len());
            // Where ops do not share launches, sums are made in another order.
            let allowed = if as_run { 0.0 } else { 1e-4 };
            let again = all_logits(&cuda, 5);
            assert!(again.iter().zip(&logits).all(|(a, b)| (a - b).abs() <= allowed), "as run: {as_run}");
        }
        // Only some rows want logits: they come compacted, in order.
        let some: Vec<Row> = prompt.iter().map(|row| Row { logits: row.position % 2 == 1, ..*row }).collect();
        cuda.step(&some, None).unwrap();
        let vocab = cuda.plan().spec.vocab;
        for n in 0..2 {
            assert!(cuda.logits(n) == &logits[(2 * n + 1) * vocab..][..vocab], "wanted row {n}");
        }
        let mut stops = Looks { stop: 3, ..Looks::new(false) };
        cuda.step(&prompt, Some(&mut stops)).unwrap();
        assert_eq!(stops.seen, 4);
        cuda.step(&prompt, None).unwrap();
        assert!(cuda.logits(0) == &logits[..vocab], "after a stopped step");
    });
}

#[test]
fn what_ran_is_seen_in_its_launches() {
    let path = scratch("ran");
    on_fake("what_ran_is_seen_in_its_launches", &[("FAKE_CUDA_LOG", &path)], || {
        let kernels = Fake::build().kernels;
        let mut cuda = load();
        let unfused = LoadOptions { path: PathChoice::Unfused, ..options(kernels) };
        let mut unfused = load_with(&unfused).unwrap();
        assert!(cuda.path(1).to_string().starts_with("fused"));
        assert!(unfused.path(1).to_string().starts_with("unfused"));
        let launches = |lines: Vec<String>| lines.iter().filter(|line| line.starts_with("launch")).count();
        let run = |cuda: &mut Cuda| launches(log(|| cuda.step(&[row(0)], None).unwrap()));
        let probed = |cuda: &mut Cuda, as_run| {
            launches(log(|| cuda.step(&[row(0)], Some(&mut Looks::new(as_run))).unwrap()))
        };
        let (few, many) = (run(&mut cuda), run(&mut unfused));
        assert!(2 * few <= many + layers(&cuda), "ops share launches: {few} and {many}");
        assert!(many >= cuda.plan().program.len(), "a launch for every op at least");
        assert_eq!([probed(&mut cuda, true), probed(&mut unfused, true)], [few, many]);
        assert_eq!(probed(&mut unfused, false), many, "it is plain already");
        assert!(probed(&mut cuda, false) > few, "each op alone");
        let counted = cuda.phases().unwrap();
        cuda.step(&[row(0)], None).unwrap();
        assert_eq!(cuda.phases().unwrap() - counted, few as u32);
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
fn a_recorded_step_tells_every_launch_and_changes_no_bit() {
    on_fake("a_recorded_step_tells_every_launch_and_changes_no_bit", &[], || {
        let mut cuda = load();
        assert!(cuda.recorded().is_err());
        for step in [rows(0..1), rows(0..5), rows(0..11)] {
            cuda.step(&step, None).unwrap();
            let plain = all_logits(&cuda, step.len());
            cuda.record(1).unwrap();
            cuda.step(&step, None).unwrap(); // made ready
            let (before, allocated) = (cuda.phases().unwrap(), allocations());
            cuda.step(&step, None).unwrap();
            if step.len() <= 8 {
                assert_eq!(allocations(), allocated, "a recorded step allocates nothing");
            }
            let launches = cuda.phases().unwrap() - before;
            assert!(all_logits(&cuda, step.len()) == plain, "{} rows", step.len());
            let recording = cuda.recorded().unwrap();
            let [lane] = &recording.lanes[..] else { panic!("one lane") };
            assert_eq!(lane.len(), launches as usize + 1, "every launch, and the check");
            assert!(lane.windows(2).all(|two| two[0].start <= two[0].end && two[0].end <= two[1].start));
            assert!(lane.last().is_some_and(|last| last.end == recording.ns));
            let covered: Vec<usize> = lane.iter().flat_map(|span| span.ops()).collect();
            assert!((0..cuda.plan().program.len()).all(|op| covered.contains(&op)), "every op");
            assert!(lane.iter().filter(|span| span.end > span.start).count() > lane.len() / 2);
            let stages = |stage| lane.iter().filter(|span| span.stage == stage).count();
            let [fused, unfused] =
                [[Stage::FusedUp, Stage::FusedDown], [Stage::GateUp, Stage::Down]].map(|two| two.map(stages));
            let layers = layers(&cuda);
            assert_eq!(
                if step.len() > 8 { [unfused, fused] } else { [fused, unfused] },
                [[layers; 2], [0; 2]]
            );
            cuda.step(&step, Some(&mut Looks::new(true))).unwrap();
            assert!(cuda.recorded().is_err(), "it was probed");
            cuda.record(0).unwrap();
            cuda.step(&step, None).unwrap();
            assert!(cuda.recorded().is_err());
        }
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
