//! The CPU backend: packed weights, a worker pool, one pass over the phases per step.

mod cache;
mod compile;
mod estimate;
mod phases;
mod pool;
mod probing;
mod shared;
mod tracer;
mod weights;

use std::ops::Range;
use std::sync::Arc;

use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::linear::{Digits, Packed, runs_on_tiles};
use amoeba_kernels::simd::Isa;
use amoeba_plan::{FEW_ROWS_MAX, HeadLinearOp, LinearOp, Op, Path, PathChoice, Plan, select_path};

use crate::sequences::Sequences;
use crate::{Activations, DeviceKind, Error, Executable, KvType, Limits, Probe, Recording, Row, check_rows};
use cache::Caches;
use compile::{Phases, Precision, compile};
use phases::{attention, experts, recurrent, rows};
use pool::{Pool, Work};
use probing::ALL_PARTS;
use shared::{Grid, PerWorker, Shared};
use tracer::Tracer;
use weights::Weights;

pub use compile::CAPABILITIES;
pub use estimate::workspace_bytes;
pub use weights::{PackProgress, RepackCache};

/// How to load for the CPU.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Workers; `None` for one per core.
    pub threads: Option<usize>,
    /// Instruction set; `None` for the widest.
    pub isa: Option<Isa>,
    /// Path through the experts.
    pub path: PathChoice,
    /// Sizes to reserve.
    pub limits: Limits,
    /// What keys and values are stored as.
    pub kv: KvType,
    /// What activations are rounded to for products of integers.
    pub activations: Activations,
    /// Where packed weights are kept, if anywhere.
    pub repack_cache: Option<RepackCache>,
}

/// A model on the CPU.
pub struct Cpu {
    pool: Pool<Model>,
    sequences: Sequences,
}

/// Everything a step works on; shared by the workers.
struct Model {
    plan: Plan,
    weights: Weights,
    phases: Phases,
    isa: Isa,
    choice: PathChoice,
    limits: Limits,
    workers: usize,
    kv: KvType,
    precision: Precision,
    buffers: Grid,
    prepared: Vec<Shared>,
    ropes: Vec<Shared>,
    caches: Caches,
    attention: Shared,
    experts: experts::Workspace,
    scratch: PerWorker<Scratch>,
    has_experts: bool,
    state: PerWorker<StepState>,
}

/// One worker's own memory.
struct Scratch {
    router: amoeba_kernels::router::cpu::Scratch,
    attention: attention::Workspace,
    experts: amoeba_kernels::experts::cpu::Scratch,
    recurrent: amoeba_kernels::delta_net::Scratch,
}

fn digits(activations: Activations) -> Result<Digits, Error> {
    match activations {
        Activations::F32 => Ok(Digits::Three),
        Activations::Int16 => Ok(Digits::Two),
        Activations::Int8 => Ok(Digits::One),
        other => Err(Error::Activations { asked: other, device: "the CPU", others: "f32, int16, int8" }),
    }
}

impl Cpu {
    /// Packs the weights and reserves caches and buffers.
    ///
    /// # Errors
    /// A tensor missing or misshapen, or threads refused.
    pub fn load(
        plan: Plan,
        checkpoint: &Arc<Checkpoint>,
        options: &CpuOptions,
        progress: PackProgress<'_>,
    ) -> Result<Cpu, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or(cores).max(1);
        if let Some(isa) = options.isa.filter(|isa| !Isa::available().contains(isa)) {
            return Err(Error::Isa(isa));
        }
        let digits = digits(options.activations)?;
        let weights = Weights::load(&plan, checkpoint, threads, options.repack_cache.as_ref(), progress)?;
        let precision = Precision::new(&plan, digits);
        let phases = compile(&plan, &plan.resolve(checkpoint)?, &precision);
        let limits = options.limits;
        let rows = limits.rows;
        let buffers =
            plan.buffers.iter().map(|buffer| Shared::zeroed(rows, buffer.width.next_multiple_of(16)));
        let buffers = Grid(buffers.collect::<Result<_, _>>()?);
        let prepared = phases.prepared.iter().map(|key| Shared::zeroed(rows, key.arrangement.len(key.cols)));
        let prepared = prepared.collect::<Result<_, _>>()?;
        let ropes =
            plan.ropes.iter().map(|rope| Shared::zeroed(rows, rope.dims)).collect::<Result<_, _>>()?;
        let experts = experts::Workspace::new(&plan, &weights, rows)?;
        let scratch = PerWorker::new(threads, || Scratch {
            router: rows::router_scratch(&plan),
            attention: attention::Workspace::new(&plan),
            experts: experts::scratch(&plan, &weights),
            recurrent: recurrent::scratch(&plan),
        });
        let state = PerWorker::new(1, || StepState {
            rows: Vec::with_capacity(rows),
            wanted: Vec::with_capacity(rows),
            path: select_path(false, 0, 0, options.path),
            parts: ALL_PARTS,
            tracer: None,
        });
        let sequences = Sequences::new(&plan, limits);
        let model = Model {
            caches: Caches::new(&plan, limits, options.kv)?,
            attention: attention::partials(&plan, limits)?,
            has_experts: plan.program.iter().any(|step| matches!(step.op, Op::Experts(_))),
            isa: options.isa.unwrap_or_else(Isa::best),
            choice: options.path,
            plan,
            weights,
            phases,
            limits,
            workers: threads,
            kv: options.kv,
            precision,
            buffers,
            prepared,
            ropes,
            experts,
            scratch,
            state,
        };
        Ok(Cpu { pool: Pool::new(model, threads)?, sequences })
    }

    fn model(&self) -> &Model {
        self.pool.work()
    }
}

/// The rows of the current step. Written by [`Cpu::step`] between runs of the pool, read by items.
struct StepState {
    rows: Vec<Row>,
    /// Rows that want logits.
    wanted: Vec<usize>,
    path: Path,
    /// Parts of the items to run: all, unless a probe looks in between.
    parts: Range<usize>,
    tracer: Option<Tracer>,
}

/// One step as the items of a phase see it.
#[derive(Clone)]
struct Step<'a> {
    model: &'a Model,
    rows: &'a [Row],
    /// Rows that the phase is for: in the head those that want logits, else all.
    count: usize,
    path: Path,
    /// Parts of the items to run.
    parts: Range<usize>,
    tracer: Option<&'a Tracer>,
}

impl Model {
    fn step(&self, phase: usize) -> Step<'_> {
        let StepState { rows, wanted, path, parts, tracer } = self.state.shared();
        let count = if phase >= self.phases.head { wanted.len() } else { rows.len() };
        let tracer = tracer.as_ref().filter(|tracer| tracer.active);
        Step { model: self, rows, count, path: *path, parts: parts.clone(), tracer }
    }

    /// Logits of the n-th row that asked for them, `[vocab]`.
    fn logits(&self, n: usize) -> &[f32] {
        &self.buffers.get(self.plan.logits).row(n)[..self.plan.spec.vocab]
    }

    /// Moves the rows that want logits to the front of the buffers the head reads.
    fn compact(&self) {
        for &id in &self.phases.carried {
            let buffer = self.buffers.get(id);
            for (to, &from) in self.state.shared().wanted.iter().enumerate().filter(|(to, from)| to < *from) {
                buffer.row_mut(to).copy_from_slice(buffer.row(from));
            }
        }
    }
}

impl Work for Model {
    fn prepare(&self, phase: usize, worker: usize) -> usize {
        let step = self.step(phase);
        if phase == self.phases.head && step.parts.start == 0 {
            self.compact();
        }
        let items = if step.count == 0 { 0 } else { self.phases.phases[phase].items(&step) };
        if let (Some(tracer), 1..) = (step.tracer, items) {
            step.traced_start(tracer, phase, worker);
        }
        items
    }

    fn run(&self, phase: usize, item: usize, worker: usize) {
        let step = self.step(phase);
        match step.tracer {
            None => self.phases.phases[phase].item(&step, item, worker),
            Some(tracer) => step.traced(tracer, phase, item, worker),
        }
    }
}

impl Executable for Cpu {
    fn plan(&self) -> &Plan {
        &self.model().plan
    }

    fn limits(&self) -> Limits {
        self.model().limits
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Cpu
    }

    fn describe(&self) -> String {
        let kv = match self.model().kv {
            KvType::F32 => String::new(),
            kv => format!(", {kv} cache"),
        };
        let activations = match self.model().precision.digits {
            Digits::Three => "",
            Digits::Two => ", int16 activations",
            Digits::One => ", int8 activations",
        };
        format!("cpu ({}, {} threads{kv}{activations})", self.model().isa, self.pool.size())
    }

    fn path(&self, rows: usize) -> Path {
        select_path(self.model().has_experts, rows, FEW_ROWS_MAX, self.model().choice)
    }

    fn instructions(&self, rows: usize) -> String {
        let Model { plan, weights, isa, .. } = self.model();
        let tiled = |(index, step): (usize, &amoeba_plan::Step)| match &step.op {
            Op::Linear(LinearOp { weight, .. }) | Op::HeadLinear(HeadLinearOp { weight, .. })
                if index < plan.head =>
            {
                runs_on_tiles(*isa, weights.matrix(*weight).layout().format, rows)
            }
            // However rows choose, one expert gets at least the average.
            Op::Experts(op) => {
                let most = (rows * op.top_k).div_ceil(op.experts);
                runs_on_tiles(*isa, weights.bank(index).up.weights.layout().format, most)
            }
            _ => false,
        };
        let tiled = plan.program.iter().enumerate().any(tiled);
        if tiled { *isa } else { isa.lanes() }.to_string()
    }

    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), Error> {
        let model = self.pool.work();
        check_rows(rows, model.limits, model.plan.spec.vocab)?;
        self.sequences.begin(rows)?;
        let state = model.state.get(0);
        state.path = self.path(rows.len());
        state.rows.clear();
        state.rows.extend_from_slice(rows);
        state.wanted.clear();
        state.wanted.extend(rows.iter().enumerate().filter(|(_, row)| row.logits).map(|(i, _)| i));
        let wanted = state.wanted.len();
        if let Some(tracer) = &mut state.tracer {
            tracer.begin(probe.is_none());
        }
        let last = if wanted > 0 { model.phases.phases.len() } else { model.phases.head };
        let complete = match probe {
            None => self.pool.run(0..last).map(|()| true),
            Some(probe) => self.probed(last, probe),
        }?;
        if !complete {
            return Ok(());
        }
        let Cpu { pool, sequences } = self;
        sequences.complete_finite(rows, |n| pool.work().logits(n))?;
        if let Some(tracer) = &mut self.model().state.get(0).tracer {
            tracer.end(last, self.plan().program.len() - 1);
        }
        Ok(())
    }

    fn logits(&self, n: usize) -> &[f32] {
        self.model().logits(n)
    }

    fn phases(&self) -> Option<u32> {
        Some(self.pool.published())
    }

    fn record(&mut self, spans: usize) -> Result<(), Error> {
        let tracer = if spans == 0 { None } else { Some(Tracer::new(self.pool.size(), spans)?) };
        self.model().state.get(0).tracer = tracer;
        Ok(())
    }

    fn recorded(&mut self) -> Result<Recording, Error> {
        self.model().state.get(0).tracer.as_mut().ok_or(Error::NotRecorded)?.recording()
    }

    fn weights(&self) -> Vec<&[u8]> {
        self.model().weights.packed().map(Packed::memory).collect()
    }

    fn memory(&self) -> usize {
        let model = self.model();
        let shared = model.buffers.0.iter().chain(&model.prepared).chain(&model.ropes);
        model.weights.bytes()
            + model.caches.bytes()
            + model.attention.bytes()
            + model.experts.bytes()
            + shared.map(Shared::bytes).sum::<usize>()
    }
}
