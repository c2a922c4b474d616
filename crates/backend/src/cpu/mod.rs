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
use amoeba_plan::{FEW_ROWS_MAX, HeadLinearOp, LinearOp, Op, Path, Plan, select_path};

use crate::{
    Activations, Backend, DeviceKind, Error, KvType, Limits, LoadOptions, Loaded, Probe, Recording, Row,
    StepRows,
};
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

/// A model on the CPU.
pub type Cpu = Loaded<Workers>;

/// Worker threads, and what they work on.
pub struct Workers {
    pool: Pool<Model>,
}

/// Everything a step works on; shared by the workers.
struct Model {
    plan: Plan,
    weights: Weights,
    phases: Phases,
    isa: Isa,
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

impl Loaded<Workers> {
    /// Packs the weights and reserves caches and buffers.
    ///
    /// # Errors
    /// A tensor missing or misshapen, or threads refused.
    pub fn load(
        plan: Plan,
        checkpoint: &Arc<Checkpoint>,
        options: &LoadOptions,
        progress: PackProgress<'_>,
    ) -> Result<Cpu, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or(cores).max(1);
        if let Some(isa) = options.isa.filter(|isa| !Isa::available().contains(isa)) {
            return Err(Error::Isa(isa));
        }
        let digits = digits(options.activations)?;
        let weights = Weights::load(&plan, checkpoint, threads, options, progress)?;
        let precision = Precision::new(&plan, digits);
        let phases = compile(&plan, &plan.stored(checkpoint)?, &precision);
        let limits = options.limits(&plan)?;
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
        let step = StepRows::new(&plan, limits, options.path, FEW_ROWS_MAX);
        let model = Model {
            caches: Caches::new(&plan, limits, options.kv)?,
            attention: attention::partials(&plan, limits)?,
            isa: options.isa.unwrap_or_else(Isa::best),
            plan,
            weights,
            phases,
            workers: threads,
            kv: options.kv,
            limits,
            precision,
            buffers,
            prepared,
            ropes,
            experts,
            scratch,
            state,
        };
        Ok(Loaded::new(Workers { pool: Pool::new(model, threads)? }, step))
    }
}

impl Workers {
    fn model(&self) -> &Model {
        self.pool.work()
    }
}

/// The rows of the current step. Written by [`Workers::run`] between runs of the pool, read by items.
struct StepState {
    rows: Vec<Row>,
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

impl Phases {
    /// The first phase that a step does not run.
    fn last(&self, step: &StepRows) -> usize {
        if step.wanted().is_empty() { self.head } else { self.phases.len() }
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

impl Backend for Workers {
    fn plan(&self) -> &Plan {
        &self.model().plan
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

    fn run(&mut self, step: &StepRows, path: Path, probe: Option<&mut dyn Probe>) -> Result<bool, Error> {
        let model = self.pool.work();
        let state = model.state.get(0);
        state.path = path;
        state.rows.clear();
        state.rows.extend_from_slice(step.rows());
        state.wanted.clear();
        state.wanted.extend_from_slice(step.wanted());
        if let Some(tracer) = &mut state.tracer {
            tracer.begin(probe.is_none());
        }
        match probe {
            None => self.pool.run(0..model.phases.last(step)).map(|()| true),
            Some(probe) => self.probed(model.phases.last(step), probe),
        }
    }

    fn checked(&mut self, step: &StepRows) -> Result<(), Error> {
        let model = self.model();
        if let Some(tracer) = &mut model.state.get(0).tracer {
            tracer.end(model.phases.last(step), model.plan.program.len() - 1);
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
