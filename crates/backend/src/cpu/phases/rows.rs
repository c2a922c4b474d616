//! Work on single rows: each row on one worker, op after op.

use std::ops::Range;

use amoeba_kernels::linear::prepare;
use amoeba_kernels::{activate, elementwise, embed, norm, rope, router};
use amoeba_plan::{
    AddOp, BufferId, CopyOp, HeadGateOp, NormOp, Op, Plan, RopeId, RopeOp, RouterOp, ScaleOp, Stage,
    TemperatureOp,
};

use super::{Model, Phase, Step};

/// Work on one row.
#[derive(Clone, Copy)]
pub enum RowWork {
    /// An op of the program.
    Op(usize),
    /// cos and sin of the row's position.
    RopeTable(RopeId),
    /// A buffer prepared for the matrices that multiply it.
    Prepare {
        /// Index of the table it goes into.
        table: usize,
        /// First op that needs it.
        reader: usize,
    },
}

/// A phase whose items are rows.
pub struct Rows(pub Vec<RowWork>);

impl Phase for Rows {
    fn items(&self, step: &Step<'_>) -> usize {
        step.count
    }

    fn item(&self, step: &Step<'_>, row: usize, worker: usize) {
        let model = step.model;
        for work in &self.0[step.parts.start..step.parts.end.min(self.0.len())] {
            match *work {
                RowWork::RopeTable(id) => {
                    let position = step.rows[row].position as u32;
                    rope::table(&model.plan.ropes[id.0], position, model.ropes[id.0].row_mut(row));
                }
                RowWork::Prepare { table, .. } => {
                    let key = model.phases.prepared[table];
                    let x = &model.buffers.get(key.x).row(row)[..key.cols];
                    prepare(model.isa, key.arrangement, x, model.prepared[table].row_mut(row));
                }
                RowWork::Op(op) => row_op(step, worker, &model.plan.program[op].op, row),
            }
        }
    }

    fn parts(&self) -> usize {
        self.0.len()
    }

    fn span(&self, _step: &Step<'_>, _row: usize, part: usize) -> (Option<usize>, Stage) {
        match self.0[part] {
            RowWork::Op(op) => (Some(op), Stage::Whole),
            RowWork::RopeTable(_) => (None, Stage::Angles),
            RowWork::Prepare { reader, .. } => (Some(reader), Stage::Input),
        }
    }

    fn completes(&self, part: usize) -> Range<usize> {
        if let RowWork::Op(op) = self.0[part] { op..op + 1 } else { 0..0 }
    }
}

fn row_op(step: &Step<'_>, worker: usize, op: &Op, row: usize) {
    let model = step.model;
    let buffer = |id: BufferId| model.buffers.get(id);
    match op {
        Op::Embed(op) => {
            let table = model.weights.matrix(op.table);
            let out = buffer(op.out).part_mut(row, 0, op.width);
            embed::embed_packed(table, step.rows[row].token, op.scale, out);
        }
        Op::Norm(op) => row_norm(model, op, row),
        Op::Rope(RopeOp { rope: id, heads, head_dim, first, x }) => {
            let table = model.ropes[id.0].row(row);
            let x = buffer(*x).part_mut(row, 0, heads * head_dim);
            for head in x.chunks_exact_mut(*head_dim) {
                rope::rotate(&mut head[*first..], table, model.plan.ropes[id.0].interleaved);
            }
        }
        Op::KvAppend(op) => {
            let at = step.rows[row];
            let [k, v] = [op.k, op.v].map(|id| buffer(id).row(row));
            model.caches.append(op.cache, at.slot, at.position, k, v);
        }
        Op::Activate(op) => {
            let values = buffer(op.out).part_mut(row, 0, op.width);
            if op.up != op.out {
                values.copy_from_slice(&buffer(op.up).row(row)[..op.width]);
            }
            let gate = op.gate.map_or(&[][..], |gate| &buffer(gate).row(row)[..op.width]);
            activate::activate(model.isa, op.activation, gate, values);
        }
        Op::Router(op) => row_route(model, worker, op, row),
        Op::HeadGate(HeadGateOp { kind, gate, heads, x, width }) => {
            for (head, gate) in buffer(*gate).row(row)[..*heads].iter().enumerate() {
                let x = buffer(*x).part_mut(row, head * width, *width);
                elementwise::scale(model.isa, x, elementwise::gate_of(*kind, *gate), None);
            }
        }
        Op::Add(AddOp { x, y, scale, width }) => {
            elementwise::add(
                model.isa,
                buffer(*x).part_mut(row, 0, *width),
                &buffer(*y).row(row)[..*width],
                *scale,
            );
        }
        Op::Scale(ScaleOp { x, scale, by, softcap, width }) => {
            let factor = elementwise::scale_of(*scale, model.weights.vector(*by));
            elementwise::scale(model.isa, buffer(*x).part_mut(row, 0, *width), factor, *softcap);
        }
        Op::Copy(op) => (0..op.heads).for_each(|head| row_copy(model, op, head, row)),
        Op::Temperature(TemperatureOp { x, width, scale, period, shift }) => {
            let factor = elementwise::temperature_of(step.rows[row].position, *scale, *period, *shift);
            elementwise::scale(model.isa, buffer(*x).part_mut(row, 0, *width), factor, None);
        }
        Op::Linear(_) | Op::HeadLinear(_) | Op::Attention(_) | Op::Experts(_) => {
            unreachable!("{} is not per-row work", op.name())
        }
        Op::Conv(_) | Op::DeltaNet(_) | Op::Ssm(_) => unreachable!("{} is not per-row work", op.name()),
    }
}

fn row_route(model: &Model, worker: usize, op: &RouterOp, row: usize) {
    let buffer = |id: BufferId| model.buffers.get(id);
    let logits = &buffer(op.logits).row(row)[..op.experts];
    let scratch = &mut model.scratch.get(worker).router;
    let out = buffer(op.out).part_mut(row, 0, 2 * op.rule.top_k);
    let [correction, per_expert] = [op.correction, op.per_expert].map(|id| model.weights.vector(id));
    router::route(&op.rule, router::Learned { correction, per_expert }, logits, scratch, out);
    if let Some(gate) = op.input_gate {
        buffer(gate).part_mut(row, 0, 1)[0] = router::take_weight(out);
    }
}

/// Copies the elements of one head of a row.
fn row_copy(model: &Model, op: &CopyOp, head: usize, row: usize) {
    let CopyOp { x, out, len, .. } = *op;
    let (from, to) = (x.first + head * x.stride, out.first + head * out.stride);
    if x.buffer == out.buffer {
        return model.buffers.get(x.buffer).row_mut(row).copy_within(from..from + len, to);
    }
    let x = &model.buffers.get(x.buffer).row(row)[from..from + len];
    model.buffers.get(out.buffer).part_mut(row, to, len).copy_from_slice(x);
}

fn row_norm(model: &Model, op: &NormOp, row: usize) {
    let width = op.chunks * op.dim;
    let out = model.buffers.get(op.out).part_mut(row, 0, width);
    if op.x != op.out {
        out.copy_from_slice(&model.buffers.get(op.x).row(row)[..width]);
    }
    let parameters = norm::Norm::of(op, |id| model.weights.vector(id));
    for (i, chunk) in out.chunks_exact_mut(op.dim).enumerate() {
        let own = if op.per_chunk { parameters.of_chunk(i, op.dim) } else { parameters };
        norm::norm(model.isa, &own, chunk);
    }
}

/// Scratch of the router, wide enough for every layer.
pub fn router_scratch(plan: &Plan) -> router::cpu::Scratch {
    let widest = plan.program.iter().map(|step| match &step.op {
        Op::Router(op) => op.experts,
        _ => 0,
    });
    router::cpu::Scratch::new(widest.max().unwrap_or(0))
}
