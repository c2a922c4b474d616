//! How the workers share out one op. The maths is in `amoeba_kernels`.

use amoeba_kernels::linear::prepare;
use amoeba_kernels::{activate, elementwise, embed, norm, rope, router};
use amoeba_plan::{BufferId, NormOp, Op, Plan, Strided};

use super::{Model, RowWork, Step};

/// Runs the work of one row.
pub fn row(step: &Step<'_>, work: &[RowWork], row: usize, worker: usize) {
    let model = step.model;
    for work in work {
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

fn row_op(step: &Step<'_>, worker: usize, op: &Op, row: usize) {
    let model = step.model;
    let buffer = |id: BufferId| model.buffers.get(id);
    match op {
        Op::Embed { table, scale, out } => {
            let table = model.weights.matrix(*table);
            let out = buffer(*out).part_mut(row, 0, table.layout().cols);
            embed::embed_packed(table, step.rows[row].token, *scale, out);
        }
        Op::Norm(op) => row_norm(model, op, row),
        Op::Rope { rope: id, heads, head_dim, first, x } => {
            let table = model.ropes[id.0].row(row);
            let x = buffer(*x).part_mut(row, 0, heads * head_dim);
            for head in x.chunks_exact_mut(*head_dim) {
                rope::rotate(&mut head[*first..], table, model.plan.ropes[id.0].interleaved);
            }
        }
        Op::KvAppend { cache, k, v } => {
            let at = step.rows[row];
            model.caches.append(*cache, at.slot, at.position, buffer(*k).row(row), buffer(*v).row(row));
        }
        Op::Activate { activation, gate, up, out, width } => {
            let values = buffer(*out).part_mut(row, 0, *width);
            if up != out {
                values.copy_from_slice(&buffer(*up).row(row)[..*width]);
            }
            let gate = gate.map_or(&[][..], |gate| &buffer(gate).row(row)[..*width]);
            activate::activate(model.isa, *activation, gate, values);
        }
        Op::Router { logits, out, experts, rule, correction, per_expert, input_gate } => {
            let logits = &buffer(*logits).row(row)[..*experts];
            let scratch = &mut model.scratch.get(worker).router;
            let out = buffer(*out).part_mut(row, 0, 2 * rule.top_k);
            let [correction, per_expert] = [*correction, *per_expert].map(|id| model.weights.vector(id));
            router::route(rule, router::Learned { correction, per_expert }, logits, scratch, out);
            if let Some(gate) = input_gate {
                buffer(*gate).part_mut(row, 0, 1)[0] = router::take_weight(out);
            }
        }
        Op::HeadGate { kind, gate, heads, x, width } => {
            for (head, gate) in buffer(*gate).row(row)[..*heads].iter().enumerate() {
                let x = buffer(*x).part_mut(row, head * width, *width);
                elementwise::scale(model.isa, x, elementwise::gate_of(*kind, *gate), None);
            }
        }
        Op::Add { x, y, scale, width } => {
            elementwise::add(
                model.isa,
                buffer(*x).part_mut(row, 0, *width),
                &buffer(*y).row(row)[..*width],
                *scale,
            );
        }
        Op::Scale { x, scale, by, softcap, width } => {
            let factor = elementwise::scale_of(*scale, model.weights.vector(*by));
            elementwise::scale(model.isa, buffer(*x).part_mut(row, 0, *width), factor, *softcap);
        }
        Op::Copy { x, out, heads, len } => {
            (0..*heads).for_each(|head| row_copy(model, x, out, head, *len, row))
        }
        Op::Temperature { x, width, scale, period, shift } => {
            let factor = elementwise::temperature_of(step.rows[row].position, *scale, *period, *shift);
            elementwise::scale(model.isa, buffer(*x).part_mut(row, 0, *width), factor, None);
        }
        Op::Linear { .. } | Op::HeadLinear { .. } | Op::Attention(_) | Op::Experts(_) => {
            unreachable!("{} is no row work", op.name())
        }
        Op::Conv(_) | Op::DeltaNet(_) | Op::Ssm(_) => unreachable!("{} is no row work", op.name()),
    }
}

/// Copies the elements of one head of a row.
fn row_copy(model: &Model, x: &Strided, out: &Strided, head: usize, len: usize, row: usize) {
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
    let parameters = norm::Norm {
        kind: op.kind,
        weight: model.weights.vector(op.weight),
        bias: model.weights.vector(op.bias),
        eps: op.eps,
        scale: op.scale,
    };
    for (i, chunk) in out.chunks_exact_mut(op.dim).enumerate() {
        let own = if op.per_chunk { parameters.of_chunk(i, op.dim) } else { parameters };
        norm::norm(model.isa, &own, chunk);
    }
}

/// Scratch of the router, wide enough for every layer.
pub fn router_scratch(plan: &Plan) -> router::cpu::Scratch {
    let widest = plan.program.iter().map(|step| match &step.op {
        Op::Router { experts, .. } => *experts,
        _ => 0,
    });
    router::cpu::Scratch::new(widest.max().unwrap_or(0))
}
