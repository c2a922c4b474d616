//! How the workers share out products: blocks of outputs of all heads of all products that do not depend on
//! each other.

use std::ops::Range;

use amoeba_kernels::linear::{Arrangement, Digits, Input, Layout, Packed, matmul};
use amoeba_kernels::simd::LANES;
use amoeba_plan::{BufferId, Group, HeadLinearOp, LinearOp, Op, Stage};

use super::{Model, Phase, Step};
use crate::cpu::compile::PreparedKey;
use crate::cpu::shared::Shared;

/// Bytes of weights a worker takes at a time, at most.
const ITEM_BYTES: usize = 256 << 10;

/// Products that do not depend on each other.
pub struct Products(pub Group);

impl Products {
    /// Op and blocks of an item.
    fn of_item(&self, step: &Step<'_>, mut item: usize) -> (usize, Range<usize>) {
        for op in self.0.ops.clone() {
            let (size, count) = product(step, op).chunks(step.model.workers);
            if item < count {
                return (op, item * size..(item + 1) * size);
            }
            item -= count;
        }
        unreachable!("item {item} past the last of ops {:?}", self.0.ops)
    }
}

impl Phase for Products {
    fn items(&self, step: &Step<'_>) -> usize {
        self.0.ops.clone().map(|op| product(step, op).chunks(step.model.workers).1).sum()
    }

    fn item(&self, step: &Step<'_>, item: usize, _worker: usize) {
        let (op, blocks) = self.of_item(step, item);
        product(step, op).run(step, blocks);
    }

    fn span(&self, step: &Step<'_>, item: usize, _part: usize) -> (Option<usize>, Stage) {
        (Some(self.of_item(step, item).0), Stage::Whole)
    }

    fn completes(&self, _part: usize) -> Range<usize> {
        self.0.ops.clone()
    }

    fn together(&self) -> Option<&Group> {
        Some(&self.0)
    }
}

/// A product with its operands looked up.
struct Product<'a> {
    weights: &'a Packed,
    /// Matrices, each with columns of x and outputs of its own.
    heads: usize,
    bias: Option<&'a [f32]>,
    x: BufferId,
    digits: Digits,
    out: &'a Shared,
}

fn product<'a>(step: &Step<'a>, index: usize) -> Product<'a> {
    let model = step.model;
    let op = &model.plan.program[index].op;
    let (weight, heads, bias, x, out) = match *op {
        Op::Linear(LinearOp { weight, bias, x, out, .. }) => (weight, 1, bias, x, out),
        Op::HeadLinear(HeadLinearOp { weight, heads, x, out, .. }) => (weight, heads, None, x, out),
        _ => unreachable!("op {index} is not a product"),
    };
    Product {
        weights: model.weights.matrix(weight),
        heads,
        bias: model.weights.vector(bias),
        x,
        digits: model.precision.of(index),
        out: model.buffers.get(out),
    }
}

impl Product<'_> {
    /// Blocks of all heads, one after another.
    fn blocks(&self) -> usize {
        self.heads * self.weights.layout().blocks()
    }

    /// Blocks per item and number of items: the same number for every worker, so that none waits for the last
    /// one. Bits do not depend on it.
    fn chunks(&self, workers: usize) -> (usize, usize) {
        let blocks = self.blocks().max(1);
        let rounds = self.weights.bytes().div_ceil(ITEM_BYTES * workers).max(1);
        let size = blocks.div_ceil(rounds * workers);
        (size, blocks.div_ceil(size))
    }

    fn run(&self, step: &Step<'_>, blocks: Range<usize>) {
        let (end, per_head) = (blocks.end.min(self.blocks()), self.weights.layout().blocks());
        let x = input(step.model, self.x, self.weights.layout(), self.heads, self.digits, step.count);
        let mut at = blocks.start;
        while at < end {
            let (head, first) = (at / per_head, at % per_head);
            let count = (per_head - first).min(end - at);
            self.head(step, head, first..first + count, &x);
            at += count;
        }
    }

    /// Some blocks of one head.
    fn head(&self, step: &Step<'_>, head: usize, blocks: Range<usize>, x: &Input<'_>) {
        let &Layout { rows: width, cols, .. } = self.weights.layout();
        let x = x.from_column(head * cols);
        matmul(step.model.isa, self.weights.expert(head), blocks, 0..1, &x, &mut |row, col, values| {
            let out = self.out.part_mut(row, head * width + col, values.len().min(width - col));
            copy(out, values);
            if let Some(bias) = self.bias {
                out.iter_mut().zip(&bias[col..]).for_each(|(y, b)| *y += b);
            }
        });
    }
}

/// The first of `values`; sixteen without a call.
#[inline]
pub fn copy(out: &mut [f32], values: &[f32]) {
    match (<&mut [f32; LANES]>::try_from(&mut *out), values.first_chunk()) {
        (Ok(out), Some(values)) => *out = *values,
        _ => copy_any(out, values),
    }
}

/// On its own, or the compiler makes one call of both cases.
#[inline(never)]
fn copy_any(out: &mut [f32], values: &[f32]) {
    out.copy_from_slice(&values[..out.len()]);
}

/// The first `rows` rows of a buffer as input of `heads` products with weights of that layout.
pub fn input<'a>(
    model: &'a Model,
    x: BufferId,
    layout: &Layout,
    heads: usize,
    digits: Digits,
    rows: usize,
) -> Input<'a> {
    let buffer = model.buffers.get(x);
    let arrangement = Arrangement::of(layout.format, digits);
    let key = arrangement.map(|arrangement| PreparedKey { x, arrangement, cols: heads * layout.cols });
    let table = model.phases.prepared.iter().position(|known| Some(*known) == key);
    let (prepared, prepared_stride) =
        table.map_or((&[][..], 0), |table| (model.prepared[table].all(), model.prepared[table].width));
    Input { x: buffer.all(), stride: buffer.width, index: None, rows, prepared, prepared_stride, arrangement }
}
