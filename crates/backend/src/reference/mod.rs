//! The reference interpreter: every op of the program, one row at a time, by its scalar f64 reference.
//!
//! Slow and obvious. It reads weights straight from the checkpoint, so it also checks the packed copies of the
//! other backends. A [`Probe`] may stop it after any op and read any buffer.

mod ops;
mod recurrent;
mod threads;

use std::sync::Arc;

use amoeba_checkpoint::{Checkpoint, Matrix};
use amoeba_kernels::{attention, elementwise, embed, norm};
use amoeba_plan::{
    AddOp, AttentionOp, BufferId, CopyOp, EmbedOp, HeadGateOp, KvAppendOp, NormOp, Op, Path, PathChoice,
    Plan, ScaleOp, TemperatureOp, WeightId, WeightShape,
};

use crate::rows::{StepRows, check_rows};
use crate::{Backend, Buffers, DeviceKind, Error, Flow, Limits, Loaded, Probe, Row};
use recurrent::Kept;

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
    /// inputs of its own. The head's ops take the rows that want logits; an op that carries a state goes on from
    /// where it is.
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
    fn vector(&self, id: Option<WeightId>) -> Option<&[f32]> {
        id.map(|id| &self.vectors[id.0][..])
    }

    fn matrix(&self, id: WeightId) -> Result<Matrix<'_>, Error> {
        let weight = self.plan.weight(id);
        match weight.shape {
            WeightShape::Matrix(rows, cols) => Ok(self.checkpoint.matrix(&weight.path, rows, cols)?),
            other => unreachable!("{} is used as a matrix but planned as {other}", weight.path),
        }
    }

    fn stack(&self, id: WeightId) -> Result<Vec<Matrix<'_>>, Error> {
        let weight = self.plan.weight(id);
        match weight.shape {
            WeightShape::Stack(experts, rows, cols) => {
                Ok(self.checkpoint.stack(&weight.path, weight.each.as_deref(), experts, rows, cols)?)
            }
            other => unreachable!("{} is used as a stack but planned as {other}", weight.path),
        }
    }

    fn run_one(&mut self, op: &Op, rows: &[Row]) -> Result<(), Error> {
        match op {
            Op::Embed(op) => self.embed(op, rows)?,
            Op::Norm(op) => self.norm(op, rows.len()),
            Op::Linear(op) => self.linear(op, rows.len())?,
            Op::HeadLinear(op) => self.head_linear(op, rows.len())?,
            Op::Copy(op) => self.copy(op, rows.len()),
            Op::Rope(op) => self.rope(op, rows),
            Op::KvAppend(op) => self.append(op, rows),
            Op::Attention(op) => self.attention(op, rows),
            Op::Conv(op) => self.conv(op, rows),
            Op::DeltaNet(op) => self.delta_net(op, rows),
            Op::Ssm(op) => self.ssm(op, rows),
            Op::Temperature(TemperatureOp { x, width, scale, period, shift }) => {
                for (row, x) in rows.iter().zip(&mut self.buffers.0[x.0]) {
                    let factor = elementwise::temperature_of(row.position, *scale, *period, *shift);
                    elementwise::reference::scale(&mut x[..*width], factor, None);
                }
            }
            Op::Activate(op) => self.activate(op, rows.len()),
            Op::Router(op) => self.router(op, rows.len()),
            Op::Experts(op) => self.experts(op, rows.len())?,
            Op::HeadGate(op) => self.head_gate(op, rows.len()),
            Op::Add(op) => self.add(op, rows.len()),
            Op::Scale(op) => self.scale(op, rows.len()),
        }
        Ok(())
    }

    fn embed(&mut self, op: &EmbedOp, rows: &[Row]) -> Result<(), Error> {
        let table = self.matrix(op.table)?;
        let embedded = rows.iter().map(|row| {
            let mut x = vec![0.0; op.width];
            embed::embed(&table, row.token, op.scale, &mut x);
            x
        });
        let embedded = embedded.collect();
        self.buffers.0[op.out.0] = embedded;
        Ok(())
    }

    fn copy(&mut self, op: &CopyOp, rows: usize) {
        let CopyOp { x, out, heads, len } = *op;
        for row in 0..rows {
            let source = self.buffers.0[x.buffer.0][row].clone();
            let target = &mut self.buffers.0[out.buffer.0];
            // Nothing may have been written there yet, or that of fewer rows.
            target.resize(rows, Vec::new());
            let needed = out.first + (heads - 1) * out.stride + len;
            let target = &mut target[row];
            target.resize(target.len().max(needed), 0.0);
            for head in 0..heads {
                let source = &source[x.first + head * x.stride..][..len];
                target[out.first + head * out.stride..][..len].copy_from_slice(source);
            }
        }
    }

    fn append(&mut self, op: &KvAppendOp, rows: &[Row]) {
        let KvAppendOp { cache, kv_heads, k_dim, v_dim, k, v } = *op;
        for (i, row) in rows.iter().enumerate() {
            let entry = self.caches[row.slot][cache.0].kv_mut();
            for (store, buffer, width) in [(0, k, kv_heads * k_dim), (1, v, kv_heads * v_dim)] {
                entry[store].resize(row.position * width, 0.0);
                entry[store].extend_from_slice(&self.buffers.0[buffer.0][i][..width]);
            }
        }
    }

    fn head_gate(&mut self, op: &HeadGateOp, rows: usize) {
        let HeadGateOp { kind, gate, heads, x, width } = *op;
        for row in 0..rows {
            for head in 0..heads {
                let factor = elementwise::gate_of(kind, self.buffers.0[gate.0][row][head]);
                let x = &mut self.buffers.0[x.0][row][head * width..][..width];
                elementwise::reference::scale(x, factor, None);
            }
        }
    }

    fn add(&mut self, op: &AddOp, rows: usize) {
        for row in 0..rows {
            let addend = self.buffers.0[op.y.0][row][..op.width].to_vec();
            elementwise::reference::add(&mut self.buffers.0[op.x.0][row], &addend, op.scale);
        }
    }

    fn scale(&mut self, op: &ScaleOp, rows: usize) {
        let factor = elementwise::scale_of(op.scale, self.vector(op.by));
        for x in &mut self.buffers.0[op.x.0][..rows] {
            elementwise::reference::scale(&mut x[..op.width], factor, op.softcap);
        }
    }

    fn norm(&mut self, op: &NormOp, rows: usize) {
        let parameters = norm::Norm {
            kind: op.kind,
            weight: self.vector(op.weight),
            bias: self.vector(op.bias),
            eps: op.eps,
            scale: op.scale,
        };
        let mut out: Vec<Vec<f32>> = self.buffers.0[op.x.0][..rows].to_vec();
        for row in &mut out {
            if op.x != op.out {
                row.truncate(op.chunks * op.dim);
            }
            for (i, chunk) in row.chunks_exact_mut(op.dim).take(op.chunks).enumerate() {
                let own = if op.per_chunk { parameters.of_chunk(i, op.dim) } else { parameters };
                norm::reference::norm(&own, chunk);
            }
        }
        self.buffers.0[op.out.0] = out;
    }

    fn attention(&mut self, op: &AttentionOp, rows: &[Row]) {
        let AttentionOp { head_dim, v_dim, scale, softcap, .. } = *op;
        let shape = attention::Shape { head_dim, v_dim, scale, softcap };
        let sinks = self.vector(op.sinks);
        let mut all = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            let [keys, values] = self.caches[row.slot][op.cache.0].kv();
            let visible = attention::first_visible(row.position, op.window)..row.position + 1;
            // Keys or values of one head at the visible positions, side by side.
            let gather = |all: &[f32], head: usize, dim: usize| -> Vec<f32> {
                let at = |p: usize| (p * op.kv_heads + head) * dim;
                visible.clone().flat_map(|p| all[at(p)..at(p) + dim].to_vec()).collect()
            };
            let mut out = vec![0.0; op.heads * v_dim];
            for (head, out) in out.chunks_exact_mut(v_dim).enumerate() {
                let kv_head = head / (op.heads / op.kv_heads);
                let (keys, values) = (gather(keys, kv_head, head_dim), gather(values, kv_head, v_dim));
                let q = &self.buffers.0[op.q.0][i][head * head_dim..][..head_dim];
                attention::reference::attend(&shape, q, &keys, &values, sinks.map(|sinks| sinks[head]), out);
            }
            all.push(out);
        }
        self.buffers.0[op.out.0] = all;
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
        self.limits.slots * recurrent::bytes(&self.plan, self.limits.context)
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
