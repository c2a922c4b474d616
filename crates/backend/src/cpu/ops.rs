//! How the workers share out one op. The maths is in `amoeba_kernels`.

use amoeba_kernels::linear::{Arrangement, Digits, Input, Packed, matmul, prepare};
use amoeba_kernels::simd::LANES;
use amoeba_kernels::{activate, add, embed, norm, rope, router};
use amoeba_plan::{BufferId, NormOp, Op, Plan};

use super::compile::PreparedKey;
use super::shared::Shared;
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
            let out = buffer(*out).part_mut(row, 0, *width);
            out.copy_from_slice(&buffer(*up).row(row)[..*width]);
            let gate = gate.map_or(&[][..], |gate| &buffer(gate).row(row)[..*width]);
            activate::activate(model.isa, *activation, gate, out);
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
                add::scale(model.isa, x, add::gate_of(*kind, *gate), None);
            }
        }
        Op::Add { x, y, scale, width } => {
            add::add(model.isa, buffer(*x).part_mut(row, 0, *width), &buffer(*y).row(row)[..*width], *scale);
        }
        Op::Scale { x, scale, by, softcap, width } => {
            let factor = add::scale_of(*scale, model.weights.vector(*by));
            add::scale(model.isa, buffer(*x).part_mut(row, 0, *width), factor, *softcap);
        }
        Op::HeadLinear { .. } | Op::Copy { .. } | Op::Temperature { .. } => {
            unreachable!("{} is not built in yet", op.name())
        }
        Op::Linear { .. } | Op::Attention(_) | Op::Experts(_) => unreachable!("{} is no row work", op.name()),
        Op::Conv(_) | Op::DeltaNet(_) | Op::Ssm(_) => unreachable!("{} is no row work", op.name()),
    }
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

/// Bytes of weights a worker takes at a time, at most.
const ITEM_BYTES: usize = 256 << 10;

/// Items of some independent products: blocks of outputs.
pub fn linear_items(step: &Step<'_>, linears: &[usize]) -> usize {
    linears.iter().map(|&op| chunks(product(step, op).weights, step.model.workers).1).sum()
}

/// Runs one item of some independent products.
pub fn linears(step: &Step<'_>, linears: &[usize], item: usize, rows: usize) {
    let (op, blocks) = linear_of(step, linears, item);
    product(step, op).run(step, blocks, rows);
}

/// Op and blocks of one item of some independent products.
pub fn linear_of(step: &Step<'_>, linears: &[usize], mut item: usize) -> (usize, std::ops::Range<usize>) {
    for &op in linears {
        let (size, count) = chunks(product(step, op).weights, step.model.workers);
        if item < count {
            return (op, item * size..(item + 1) * size);
        }
        item -= count;
    }
    unreachable!("item {item} past the last of ops {linears:?}")
}

/// Blocks per item and number of items of a product: the same number for every worker, so that none waits for the
/// last one. Bits do not depend on it.
fn chunks(weights: &Packed, workers: usize) -> (usize, usize) {
    let blocks = weights.layout().blocks().max(1);
    let rounds = weights.bytes().div_ceil(ITEM_BYTES * workers).max(1);
    let size = blocks.div_ceil(rounds * workers);
    (size, blocks.div_ceil(size))
}

/// A linear op with its operands looked up.
struct Product<'a> {
    weights: &'a Packed,
    bias: Option<&'a [f32]>,
    x: BufferId,
    digits: Digits,
    out: &'a Shared,
}

fn product<'a>(step: &Step<'a>, op: usize) -> Product<'a> {
    let model = step.model;
    let Op::Linear { weight, bias, x, out } = model.plan.program[op].op else {
        unreachable!("op {op} is no product")
    };
    Product {
        weights: model.weights.matrix(weight),
        bias: model.weights.vector(bias),
        x,
        digits: model.precision.of(op),
        out: model.buffers.get(out),
    }
}

impl Product<'_> {
    fn run(&self, step: &Step<'_>, blocks: std::ops::Range<usize>, rows: usize) {
        let layout = self.weights.layout();
        let blocks = blocks.start..blocks.end.min(layout.blocks());
        let input = input(step.model, self.x, layout, self.digits, rows);
        matmul(step.model.isa, self.weights.expert(0), blocks, 0..1, &input, &mut |row, col, values| {
            let width = values.len().min(layout.rows - col);
            let out = self.out.part_mut(row, col, width);
            copy(out, values);
            if let Some(bias) = self.bias {
                out.iter_mut().zip(&bias[col..]).for_each(|(y, b)| *y += b);
            }
        });
    }
}

/// The first values of sixteen; a whole vector without a call.
#[inline]
pub fn copy(out: &mut [f32], values: &[f32; LANES]) {
    match out.first_chunk_mut::<LANES>() {
        Some(out) => *out = *values,
        None => out.copy_from_slice(&values[..out.len()]),
    }
}

/// The first `rows` rows of a buffer as input of a product with weights of that layout.
pub fn input<'a>(
    model: &'a Model,
    x: BufferId,
    layout: &amoeba_kernels::linear::Layout,
    digits: Digits,
    rows: usize,
) -> Input<'a> {
    let buffer = model.buffers.get(x);
    let arrangement = Arrangement::of(layout.format, digits);
    let key = arrangement.map(|arrangement| PreparedKey { x, arrangement, cols: layout.cols });
    let table = model.phases.prepared.iter().position(|known| Some(*known) == key);
    let (prepared, prepared_stride) =
        table.map_or((&[][..], 0), |table| (model.prepared[table].all(), model.prepared[table].width));
    Input { x: buffer.all(), stride: buffer.width, index: None, rows, prepared, prepared_stride, arrangement }
}

/// Scratch of the router, wide enough for every layer.
pub fn router_scratch(plan: &Plan) -> router::cpu::Scratch {
    let widest = plan.program.iter().map(|step| match &step.op {
        Op::Router { experts, .. } => *experts,
        _ => 0,
    });
    router::cpu::Scratch::new(widest.max().unwrap_or(0))
}
