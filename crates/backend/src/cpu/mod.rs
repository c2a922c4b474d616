//! The CPU backend: packed weights, a worker pool, one pass over the phases per step.

mod cache;
mod compile;
mod experts;
mod ops;
mod pool;
mod shared;
mod weights;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::experts::cpu::FUSED_ROWS_MAX;
use amoeba_kernels::simd::Isa;
use amoeba_plan::{Op, Path, PathChoice, Plan, select_path};

use crate::{Error, Executable, Flow, Limits, Probe, Row, check_finite, check_rows};
use cache::Caches;
use compile::{Phase, Phases, RowWork, compile};
use pool::{Pool, Team};
use shared::{Grid, PerWorker, Shared};
use weights::Weights;

pub use weights::PackProgress;

/// How to load for the CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Workers; `None` for one per core.
    pub threads: Option<usize>,
    /// Instruction set; `None` for the widest.
    pub isa: Option<Isa>,
    /// Path through the experts.
    pub path: PathChoice,
    /// Sizes to reserve.
    pub limits: Limits,
}

/// A model on the CPU.
pub struct Cpu {
    model: Model,
    pool: Pool,
    /// Rows of the current step, and those of them that want logits.
    rows: Vec<Row>,
    wanted: Vec<usize>,
}

/// Everything a step works on; shared by the workers.
struct Model {
    plan: Plan,
    weights: Weights,
    phases: Phases,
    isa: Isa,
    choice: PathChoice,
    limits: Limits,
    buffers: Grid,
    sums: Vec<Shared>,
    ropes: Vec<Shared>,
    caches: Caches,
    experts: experts::Workspace,
    scratch: PerWorker<Scratch>,
    logits: usize,
    has_experts: bool,
}

/// One worker's own memory.
struct Scratch {
    router: amoeba_kernels::router::cpu::Scratch,
    attention: ops::AttentionScratch,
    experts: experts::Scratch,
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
        let weights = Weights::load(&plan, checkpoint, threads, progress)?;
        let phases = compile(&plan, &weights);
        let limits = options.limits;
        let rows = limits.rows;
        let buffers =
            plan.buffers.iter().map(|buffer| Shared::zeroed(rows, buffer.width.next_multiple_of(16)));
        let buffers = Grid(buffers.collect());
        let sums = phases.sums.iter().map(|key| Shared::zeroed(rows, key.cols / key.group)).collect();
        let ropes = plan.ropes.iter().map(|rope| Shared::zeroed(rows, rope.dims)).collect();
        let experts = experts::Workspace::new(&plan, &weights, rows);
        let scratch = PerWorker::new(threads, || Scratch {
            router: ops::router_scratch(&plan),
            attention: ops::AttentionScratch::new(&plan, limits.context),
            experts: experts::Scratch::new(&plan, &weights, rows),
        });
        let model = Model {
            caches: Caches::new(&plan, limits),
            logits: plan.buffer_named("logits").map_or(0, |id| id.0),
            has_experts: plan.program.iter().any(|step| matches!(step.op, Op::Experts(_))),
            isa: options.isa.unwrap_or_else(Isa::best),
            choice: options.path,
            plan,
            weights,
            phases,
            limits,
            buffers,
            sums,
            ropes,
            experts,
            scratch,
        };
        let pool = Pool::new(threads)?;
        Ok(Cpu { model, pool, rows: Vec::with_capacity(rows), wanted: Vec::with_capacity(rows) })
    }
}

/// One step as its workers see it.
struct Step<'a> {
    model: &'a Model,
    rows: &'a [Row],
    wanted: &'a [usize],
    path: Path,
    probe: Option<Mutex<&'a mut dyn Probe>>,
    stop: AtomicBool,
}

impl Step<'_> {
    /// What every worker runs.
    fn run(&self, team: Team<'_>) {
        for (i, phase) in self.model.phases.phases.iter().enumerate() {
            if i == self.model.phases.head {
                if self.wanted.is_empty() {
                    return;
                }
                if team.worker == 0 {
                    self.compact();
                }
                team.barrier();
            }
            let in_head = i >= self.model.phases.head;
            match phase {
                Phase::Rows(work) => ops::rows(self, team, work, in_head),
                Phase::Linears(linears) => ops::linears(self, team, linears, in_head),
                Phase::Attention(op) => ops::attention(self, team, *op),
                Phase::Experts(op) => experts::run(self, team, *op),
            }
            team.barrier();
            if self.probe.is_some() && self.look(team, phase) == Flow::Stop {
                return;
            }
        }
    }

    /// Rows of the step in this phase.
    fn count(&self, in_head: bool) -> usize {
        if in_head { self.wanted.len() } else { self.rows.len() }
    }

    /// Moves the rows that want logits to the front of the buffers the head reads.
    fn compact(&self) {
        for &id in &self.model.phases.carried {
            let buffer = self.model.buffers.get(id);
            for (to, &from) in self.wanted.iter().enumerate().filter(|(to, from)| to < *from) {
                buffer.row_mut(to).copy_from_slice(buffer.row(from));
            }
        }
    }

    /// Shows the ops of a finished phase to the probe.
    fn look(&self, team: Team<'_>, phase: &Phase) -> Flow {
        if team.worker == 0
            && let Some(Ok(mut probe)) = self.probe.as_ref().map(Mutex::lock)
        {
            let mut show = |op: usize| {
                if probe.wants(op) && probe.see(op, &self.model.buffers) == Flow::Stop {
                    self.stop.store(true, Ordering::Relaxed);
                }
            };
            match phase {
                Phase::Rows(work) => work.iter().for_each(|work| match work {
                    RowWork::Op(op) => show(*op),
                    RowWork::RopeTable(_) | RowWork::GroupSums(_) => {}
                }),
                Phase::Linears(ops) => ops.iter().copied().for_each(show),
                Phase::Attention(op) | Phase::Experts(op) => show(*op),
            }
        }
        team.barrier();
        if self.stop.load(Ordering::Relaxed) { Flow::Stop } else { Flow::Continue }
    }
}

impl Executable for Cpu {
    fn plan(&self) -> &Plan {
        &self.model.plan
    }

    fn limits(&self) -> Limits {
        self.model.limits
    }

    fn describe(&self) -> String {
        format!("cpu ({}, {} threads)", self.model.isa, self.pool.size())
    }

    fn path(&self, rows: usize) -> Path {
        select_path(self.model.has_experts, rows, FUSED_ROWS_MAX, self.model.choice)
    }

    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), Error> {
        check_rows(rows, self.model.limits, self.model.plan.spec.vocab)?;
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        self.wanted.clear();
        self.wanted.extend(rows.iter().enumerate().filter(|(_, row)| row.logits).map(|(i, _)| i));
        let step = Step {
            model: &self.model,
            rows: &self.rows,
            wanted: &self.wanted,
            path: self.path(rows.len()),
            probe: probe.map(|probe| Mutex::new(probe as &mut dyn Probe)),
            stop: AtomicBool::new(false),
        };
        self.pool.run(&|team| step.run(team))?;
        if step.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        (0..self.wanted.len()).try_for_each(|n| check_finite(self.logits(n), self.wanted[n]))
    }

    fn logits(&self, n: usize) -> &[f32] {
        &self.model.buffers.0[self.model.logits].row(n)[..self.model.plan.spec.vocab]
    }

    fn memory(&self) -> usize {
        let shared = self.model.buffers.0.iter().chain(&self.model.sums).chain(&self.model.ropes);
        self.model.weights.bytes() + self.model.caches.bytes() + shared.map(Shared::bytes).sum::<usize>()
    }
}
