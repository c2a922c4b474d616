//! Runs the tests: one load, a warm-up, then repetitions in turn so that drift hits all tests alike.

use std::path::Path;
use std::time::Instant;

use amoeba_backend::{Buffers, Executable, Flow, Probe, Row as Token};
use amoeba_engine::{LoadOptions, load_executable, open};
use amoeba_plan::{BufferId, Op};

use super::case::Case;
use super::cost::Model;
use super::decode::{self, Sampling};
use super::measure::{PIECE, read_rate};
use super::ops::record;
use super::row::{Row, SCHEMA};
use super::steps::steps;
use super::subject::{Build, Host, Kind, Test};
use super::watch::{Others, Watch};
use crate::Error;

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// What the rows call the model.
    pub name: String,
    /// The tests.
    pub tests: Vec<Test>,
    /// Repetitions of each after one warm-up.
    pub repeats: usize,
    /// Device and path; context and sequences follow from the tests.
    pub load: LoadOptions,
    /// Threads; the reference has one, whatever this says.
    pub threads: usize,
    /// Goes into every row.
    pub build: Build,
    /// Goes into every row.
    pub host: Host,
    /// Most memory the process has held.
    pub peak_memory: fn() -> Option<u64>,
    /// Processor time of everything but this process.
    pub others: Others,
    /// Clock of the cores now, mean in MHz, where the system tells.
    pub clock: fn() -> Option<f64>,
}

/// Measures a model; one row per test, in order. Nothing but this should run meanwhile.
///
/// # Errors
/// The model cannot be loaded, a context is longer than the model takes, or a step fails.
pub fn bench(dir: &Path, options: &BenchOptions) -> Result<Vec<Row>, Error> {
    let longest = options.tests.iter().map(|test| test.cached() + test.tokens).max();
    let load = LoadOptions {
        context: Some(longest.unwrap_or(1)),
        slots: options.tests.iter().map(|test| test.batch).max().unwrap_or(1),
        threads: Some(options.threads),
        ..options.load.clone()
    };
    let started = Instant::now();
    let checkpoint = open(dir)?;
    let mut executable = load_executable(&checkpoint, &load, &mut |_, _| {})?;
    let milliseconds = || started.elapsed().as_nanos() as f64 / 1e6;
    let load_ms = milliseconds();
    executable.step(&[Token { token: 0, slot: 0, position: 0, logits: true }], None)?;
    let first_token_ms = milliseconds();
    let model = Model::new(&options.name, &checkpoint, executable.plan())?;
    drop(checkpoint);
    let mut cases = Vec::new();
    for &test in &options.tests {
        let mut case = case(&mut *executable, test, &model, options)?;
        (case.row.load_ms, case.row.first_token_ms) = (load_ms, first_token_ms);
        cases.push(case);
    }
    for case in &mut cases {
        case.row.phases_per_step = time(&mut *executable, case.test, None)?.phases;
    }
    let peak = (options.peak_memory)();
    let mut reads = PlainReads::new(&*executable, &cases, options.threads);
    let watch = Watch::new(options.others);
    for _ in 0..options.repeats {
        for case in &mut cases {
            case.row.samples_ns.push(time(&mut *executable, case.test, None)?.ns);
            let reads = reads.as_mut().filter(|_| case.reads.is_some());
            case.plain_reads.extend(reads.map(|reads| reads.rate(&*executable)));
        }
    }
    let (others, clock) = (watch.cores(), (options.clock)());
    for case in &mut cases {
        (case.row.other_cores, case.row.clock_mhz, case.row.peak_memory_bytes) = (others, clock, peak);
        case.row.peak_memory_ratio = peak.map(|peak| peak as f64 / model.bytes.max(1) as f64);
        let steps = steps(executable.plan(), case.test, executable.limits().rows);
        record(&mut *executable, case, &steps)?;
    }
    Ok(cases.into_iter().map(Case::finish).collect())
}

/// What memory delivers between the repetitions, read from the weights themselves: on a shared machine it may
/// double or halve within minutes, and from one region of memory to another.
struct PlainReads {
    threads: usize,
    last: f64,
}

/// Bytes of the weights that are read for that, at most: far outside of caches, and soon done.
const READ_MAX: usize = 256 << 20;
/// Rounds of each order of reading between two repetitions.
const READ_ROUNDS: usize = 3;

impl PlainReads {
    /// `None` if no test is compared with it, or no weights can be read.
    fn new(executable: &dyn Executable, cases: &[Case<'_>], threads: usize) -> Option<PlainReads> {
        let wanted = cases.iter().any(|case| case.reads.is_some()) && !executable.weights().is_empty();
        wanted.then(|| PlainReads { threads, last: PlainReads::now(executable, threads) })
    }

    /// Bytes a second of pieces from all over the weights.
    fn now(executable: &dyn Executable, threads: usize) -> f64 {
        let weights = executable.weights();
        let pieces: Vec<&[u8]> = weights.iter().flat_map(|weights| weights.chunks(PIECE)).collect();
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let step = bytes.div_ceil(READ_MAX).max(1);
        let pieces: Vec<&[u8]> = pieces.into_iter().step_by(step).collect();
        read_rate(&pieces, threads, READ_ROUNDS).0
    }

    /// Mean of before and after the repetition, in bytes a second.
    fn rate(&mut self, executable: &dyn Executable) -> f64 {
        let before = std::mem::replace(&mut self.last, PlainReads::now(executable, self.threads));
        (before + self.last) / 2.0
    }
}

/// A test with what its row says before it runs.
fn case<'a>(
    executable: &mut dyn Executable,
    test: Test,
    model: &'a Model,
    options: &BenchOptions,
) -> Result<Case<'a>, Error> {
    let [body, head] = model.products();
    let step_rows = match test.kind {
        Kind::Prefill => test.tokens.min(executable.limits().rows),
        Kind::Decode => test.batch,
    };
    let logits = if test.kind == Kind::Prefill { 1 } else { test.all_tokens() };
    let sampling = Sampling::of(executable, test);
    let (build, host, path) = (options.build.clone(), options.host.clone(), executable.path(step_rows));
    let kv = options.load.kv;
    let mut row = Row {
        schema: SCHEMA,
        version: build.version,
        commit: build.commit,
        dirty: build.dirty,
        rustc: build.rustc,
        cpu: host.cpu,
        cores: host.cores,
        isa: host.isa,
        os: host.os,
        ran_on: executable.kind(),
        device: executable.device(),
        device_detail: executable.describe(),
        isa_ran: executable.instructions(step_rows),
        threads: if executable.kind().has_threads() { options.threads } else { 1 },
        model: model.name.clone(),
        model_hash: model.hash.clone(),
        model_bytes: model.bytes,
        formats: model.formats.clone(),
        test: test.to_string(),
        kind: test.kind,
        tokens: test.tokens,
        depth: test.depth,
        batch: test.batch,
        path: path.kind.to_string(),
        path_reason: path.to_string(),
        sampling: sampling.map(|sampling| sampling.name().to_owned()),
        sampling_note: sampling.and_then(Sampling::note),
        kv_type: kv.to_string(),
        activations: options.load.activations.to_string(),
        warmups: 1,
        memory_bytes: executable.memory(),
        ..Row::default()
    };
    let mut reads = None;
    if test.kind == Kind::Decode {
        let mut distinct: Vec<f64> = model.routers().map(|(_, _, top_k)| top_k as f64).collect();
        if test.batch > 1 && !distinct.is_empty() {
            distinct = count_experts(executable, test, model)?;
        }
        // Each step sees its own position too.
        let positions = test.cached() as f64 + (test.tokens + 1) as f64 / 2.0;
        reads = Some(model.reads(test.batch, positions, kv, &distinct));
        let mean = distinct.iter().sum::<f64>() / distinct.len().max(1) as f64;
        row.distinct_experts = (!distinct.is_empty()).then_some(mean);
    }
    let products = test.all_tokens() as f64 * body + logits as f64 * head;
    Ok(Case { model, test, kv, reads, products, plain_reads: Vec::new(), row })
}

/// One repetition.
struct Timed {
    ns: u64,
    /// Parallel phases per step.
    phases: Option<f64>,
}

/// Runs a test once: first, off the clock, what is cached before; then the timed steps.
fn time(
    executable: &mut dyn Executable,
    test: Test,
    mut probe: Option<&mut dyn Probe>,
) -> Result<Timed, Error> {
    let steps = steps(executable.plan(), test, executable.limits().rows);
    let drawn = match Sampling::of(executable, test) {
        Some(Sampling::Device { ahead }) if probe.is_none() => Some(ahead),
        _ => None,
    };
    if drawn.is_some() {
        decode::begin(executable, &steps.before)?;
    } else {
        steps.before.iter().try_for_each(|rows| executable.step(rows, None))?;
    }
    let before = executable.phases();
    let started = Instant::now();
    if let Some(ahead) = drawn {
        decode::draw(executable, steps.timed.len(), ahead)?;
    } else {
        for rows in &steps.timed {
            match &mut probe {
                None => executable.step(rows, None)?,
                Some(probe) => executable.step(rows, Some(&mut **probe))?,
            }
        }
    }
    let ns = started.elapsed().as_nanos() as u64;
    let phases = executable.phases().zip(before).map(|(after, before)| after.wrapping_sub(before));
    Ok(Timed { ns, phases: phases.map(|phases| f64::from(phases) / steps.timed.len() as f64) })
}

/// Different experts an average step needs, one number per router: seen in a repetition of its own, off the
/// record.
fn count_experts(executable: &mut dyn Executable, test: Test, model: &Model) -> Result<Vec<f64>, Error> {
    let routers =
        model.routers().filter_map(|(op, experts, top_k)| match &executable.plan().program[op].op {
            Op::Router(router) => {
                Some(Router { op, out: router.out, top_k, seen: vec![false; experts], needed: 0 })
            }
            _ => None,
        });
    let mut counter = Counter { rows: test.batch, routers: routers.collect() };
    time(executable, test, Some(&mut counter))?;
    Ok(counter.routers.iter().map(|router| router.needed as f64 / test.tokens as f64).collect())
}

/// Counts the experts that routers choose.
struct Counter {
    rows: usize,
    routers: Vec<Router>,
}

struct Router {
    op: usize,
    /// `[k indices as f32, k weights]` per row.
    out: BufferId,
    top_k: usize,
    seen: Vec<bool>,
    needed: usize,
}

impl Probe for Counter {
    fn wants(&self, op: usize) -> bool {
        self.routers.iter().any(|router| router.op == op)
    }

    fn as_run(&self) -> bool {
        true
    }

    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow {
        for router in self.routers.iter_mut().filter(|router| router.op == op) {
            router.seen.fill(false);
            for row in 0..self.rows {
                let chosen = &buffers.row(router.out, row)[..router.top_k];
                chosen.iter().for_each(|&expert| router.seen[expert as usize] = true);
            }
            router.needed += router.seen.iter().filter(|seen| **seen).count();
        }
        Flow::Continue
    }
}
