//! The reference interpreter: every op of the program, one row at a time, by its scalar f64 reference.
//!
//! Slow and obvious. It reads weights straight from the checkpoint, so it also checks the packed copies of
//! the other backends. A [`Probe`] may stop it after any op and read any buffer.

mod caches;
mod threads;

use std::sync::Arc;

use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::{
    activate, attention, conv, delta_net, elementwise, embed, experts, linear, norm, reference, rope, router,
    ssm,
};
use amoeba_plan::{BufferId, Op, Path, PathChoice, Plan};

use crate::rows::{StepRows, check_rows};
use crate::{Backend, Buffers, DeviceKind, Error, Flow, Limits, Loaded, Probe, Row};
use caches::Kept;

/// Interprets a plan in f64.
pub type Reference = Loaded<Interpreter>;

/// Weights, caches and buffers of the interpreter.
pub struct Interpreter {
    plan: Plan,
    checkpoint: Arc<Checkpoint>,
    /// Threads that products are shared by.
    threads: usize,
    /// Vectors (norm weights, biases) by weight id; empty for matrices.
    vectors: Vec<Vec<f32>>,
    /// Per slot and cache.
    caches: Vec<Vec<Kept>>,
    limits: Limits,
    buffers: Grid,
    /// Per buffer, the rows of the step; the head's buffers hold only rows that want logits.
    logits: Vec<Vec<f32>>,
}

/// Buffers as `[buffer][row]` vectors.
struct Grid(Vec<Vec<Vec<f32>>>);

impl Buffers for Grid {
    fn row(&self, buffer: BufferId, row: usize) -> &[f32] {
        &self.0[buffer.0][row]
    }
}

impl Loaded<Interpreter> {
    /// Checks all weights and reserves caches.
    ///
    /// # Errors
    /// A tensor missing or misshapen.
    pub fn load(plan: Plan, checkpoint: Arc<Checkpoint>, limits: Limits) -> Result<Reference, Error> {
        plan.stored(&checkpoint)?;
        let vectors =
            plan.weights.iter().map(|weight| Ok(weight.read_vector(&checkpoint)?.unwrap_or_default()));
        let vectors = vectors.collect::<Result<_, Error>>()?;
        let empty: Vec<_> = plan.caches.iter().map(|cache| Kept::new(cache.kind)).collect();
        let step = StepRows::new(&plan, limits, PathChoice::Unfused, 0);
        let caches = vec![empty; limits.slots];
        let buffers = Grid(vec![Vec::new(); plan.buffers.len()]);
        let (threads, logits) = (1, Vec::new());
        let interpreter = Interpreter { plan, checkpoint, threads, vectors, caches, limits, buffers, logits };
        Ok(Loaded::new(interpreter, step))
    }

    /// Shares large products by this many threads, at the same bits: every output is one thread's.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Reference {
        self.backend.threads = threads.max(1);
        self
    }

    /// Runs one op of the program on the buffers and caches as they are, for comparing a backend op by op on
    /// inputs of its own. The head's ops take the rows that want logits; an op that carries a state goes on
    /// from where it is.
    ///
    /// # Errors
    /// Rows outside the limits.
    ///
    /// # Panics
    /// The program has no such op, or a buffer it reads has fewer rows.
    pub fn run_op(&mut self, op: usize, rows: &[Row]) -> Result<(), Error> {
        let Interpreter { plan, limits, .. } = &self.backend;
        check_rows(rows, *limits, plan.spec.vocab)?;
        let op = plan.program[op].op.clone();
        self.backend.run_one(&op, rows)
    }

    /// The rows of a buffer.
    pub fn buffer(&self, id: BufferId) -> &[Vec<f32>] {
        &self.backend.buffers.0[id.0]
    }

    /// Replaces the rows of a buffer.
    pub fn set_buffer(&mut self, id: BufferId, rows: Vec<Vec<f32>>) {
        self.backend.buffers.0[id.0] = rows;
    }

    /// All buffers, for a probe.
    pub fn buffers(&self) -> &dyn Buffers {
        &self.backend.buffers
    }
}

impl Interpreter {
    /// Runs an op on some rows, one after another.
    fn run_one(&mut self, op: &Op, rows: &[Row]) -> Result<(), Error> {
        let Interpreter { plan, checkpoint, threads, vectors, caches, buffers: Grid(buffers), .. } = self;
        for written in op.io().writes {
            buffers[written.buffer.0].resize(rows.len(), Vec::new());
        }
        for (index, &Row { token, slot, position, .. }) in rows.iter().enumerate() {
            let row = &mut reference::Row { token, position, index, plan, checkpoint, vectors, buffers };
            let kept = &mut caches[slot];
            match op {
                Op::Embed(op) => embed::reference::run(op, row)?,
                Op::Norm(op) => norm::reference::run(op, row),
                Op::Linear(op) => linear::reference::run(op, row, |matrix, bias, x, y| {
                    threads::product(*threads, matrix, bias, x, y);
                })?,
                Op::HeadLinear(op) => linear::reference::run_head_linear(op, row)?,
                Op::Copy(op) => elementwise::reference::run_copy(op, row),
                Op::Rope(op) => rope::reference::run(op, row),
                Op::KvAppend(op) => attention::reference::append(op, row, kept[op.cache.0].kv()),
                Op::Attention(op) => attention::reference::run(op, row, kept[op.cache.0].kv()),
                Op::Conv(op) => conv::reference::run(op, row, kept[op.cache.0].inputs(position)),
                Op::DeltaNet(op) => delta_net::reference::run(op, row, kept[op.cache.0].state(position)),
                Op::Ssm(op) => ssm::reference::run(op, row, kept[op.cache.0].state(position)),
                Op::Temperature(op) => elementwise::reference::run_temperature(op, row),
                Op::Activate(op) => activate::reference::run(op, row),
                Op::Router(op) => router::reference::run(op, row),
                Op::Experts(op) => experts::reference::run(op, row, |layer, x, route, out| {
                    threads::sum(*threads, layer, x, route, out);
                })?,
                Op::HeadGate(op) => elementwise::reference::run_head_gate(op, row),
                Op::Add(op) => elementwise::reference::run_add(op, row),
                Op::Scale(op) => elementwise::reference::run_scale(op, row),
            }
        }
        Ok(())
    }
}

impl Backend for Interpreter {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Reference
    }

    fn describe(&self) -> String {
        "reference interpreter (scalar, f64 accumulation)".to_owned()
    }

    fn logits(&self, n: usize) -> &[f32] {
        &self.logits[n]
    }

    fn memory(&self) -> usize {
        self.limits.slots * caches::bytes(&self.plan, self.limits.context)
    }

    fn run(&mut self, step: &StepRows, _: Path, mut probe: Option<&mut dyn Probe>) -> Result<bool, Error> {
        let rows = step.rows();
        let program = self.plan.program.clone();
        let head = self.plan.head;
        let wanted: Vec<Row> = rows.iter().copied().filter(|row| row.logits).collect();
        for (i, step) in program.iter().enumerate() {
            if i == head {
                if wanted.is_empty() {
                    return Ok(true);
                }
                for buffer in self.buffers.0.iter_mut().filter(|buffer| buffer.len() == rows.len()) {
                    let mut row = rows.iter();
                    buffer.retain(|_| row.next().is_some_and(|row| row.logits));
                }
            }
            self.run_one(&step.op, if i >= head { &wanted } else { rows })?;
            if let Some(probe) = probe.as_mut().filter(|probe| probe.wants(i))
                && probe.see(i, &self.buffers) == Flow::Stop
            {
                return Ok(false);
            }
        }
        self.logits = std::mem::take(&mut self.buffers.0[self.plan.logits.0]);
        Ok(true)
    }
}
