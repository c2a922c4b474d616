//! How the workers share out the routed experts: one pass of independent items when fused, rows grouped by
//! expert and three products when not. Both end in the same weighted sum.

use std::ops::Range;

use amoeba_kernels::activate::activate;
use amoeba_kernels::experts::cpu::{Rows, Scratch as ItemScratch};
use amoeba_kernels::experts::{Bank, Partials, Projection, combine, fused_item};
use amoeba_kernels::linear::{Arrangement, Input, matmul, prepare};
use amoeba_kernels::simd::LANES;
use amoeba_plan::{ExpertsOp, FEW_ROWS_MAX, Op, PathKind, Plan, Stage};

use super::products::{copy, input};
use super::{Model, Phase, Step};
use crate::Error;
use crate::cpu::shared::{PerWorker, Shared};
use crate::cpu::weights::Weights;

/// Memory of one experts op, shared by the workers and by all layers.
pub struct Workspace {
    /// Expert outputs before the weighted sum; a row per choice (and slice, when fused).
    partials: Shared,
    /// Unfused: gate and inner activations, a row per choice, grouped by expert.
    gate: Shared,
    inner: Shared,
    /// Unfused: the inner activations prepared for the down projection.
    prepared: Shared,
    /// Filled before the items of a layer start, read by them.
    grouping: PerWorker<Grouping>,
}

/// Which rows go to which expert, grouped by expert in ascending order.
pub struct Grouping {
    /// Experts with at least one row.
    active: Vec<u32>,
    /// First member of each active expert; one more at the end.
    starts: Vec<u32>,
    /// Row of each member.
    rows: Vec<u32>,
    /// `row · top_k + choice` of each member.
    choices: Vec<u32>,
}

/// All expert ops of a plan with their index.
fn ops(plan: &Plan) -> impl Iterator<Item = (usize, &ExpertsOp)> {
    plan.program.iter().enumerate().filter_map(|(i, step)| match &step.op {
        Op::Experts(op) => Some((i, op)),
        _ => None,
    })
}

impl Workspace {
    /// Room for `rows` rows in the widest layer.
    pub fn new(plan: &Plan, weights: &Weights, rows: usize) -> Result<Workspace, Error> {
        let [partials, gate, inner, prepared] = sizes(plan, &|i| weights.bank(i).slices(), rows);
        let experts = ops(plan).map(|(_, op)| op.experts).max().unwrap_or(0);
        let room = |[rows, width]: [usize; 2]| Shared::zeroed(rows, width);
        Ok(Workspace {
            partials: room(partials)?,
            gate: room(gate)?,
            inner: room(inner)?,
            prepared: room(prepared)?,
            grouping: PerWorker::new(1, || Grouping::new(experts, gate[0])),
        })
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        [&self.partials, &self.gate, &self.inner, &self.prepared].map(Shared::bytes).iter().sum()
    }
}

/// Rows and width of the partial outputs, the gate and inner activations, and those prepared; `slices` gives
/// the slices of the experts of the op at an index.
pub fn sizes(plan: &Plan, slices: &dyn Fn(usize) -> usize, rows: usize) -> [[usize; 2]; 4] {
    let most = |f: &dyn Fn(usize, &ExpertsOp) -> usize| ops(plan).map(|(i, op)| f(i, op)).max().unwrap_or(0);
    let choices = rows * most(&|_, op| op.top_k);
    let fused = rows.min(FEW_ROWS_MAX) * most(&|i, op| op.top_k * slices(i));
    let d_ff = most(&|_, op| op.d_ff.next_multiple_of(LANES));
    let hidden = most(&|_, op| op.hidden.next_multiple_of(LANES));
    // Digits and headers of a group take less than twice its columns.
    [[choices.max(fused), hidden], [choices, d_ff], [choices, d_ff], [choices, 2 * d_ff]]
}

/// Scratch of one worker for the widest layer.
pub fn scratch(plan: &Plan, weights: &Weights) -> ItemScratch {
    ItemScratch::new(
        ops(plan).map(|(i, _)| weights.bank(i).down.weights.layout().slice_cols).max().unwrap_or(0),
    )
}

impl Grouping {
    fn new(experts: usize, choices: usize) -> Grouping {
        Grouping {
            active: Vec::with_capacity(experts),
            starts: Vec::with_capacity(experts + 2),
            rows: Vec::with_capacity(choices),
            choices: Vec::with_capacity(choices),
        }
    }

    /// Groups the choices of `rows` rows: a counting sort, so members stay in order of row.
    fn fill(&mut self, routes: &Shared, rows: usize, op: &ExpertsOp) {
        let top_k = op.top_k;
        let expert = |choice: usize| routes.row(choice / top_k)[choice % top_k] as usize;
        let Grouping { active, starts, rows: members, choices } = self;
        active.clear();
        starts.clear();
        starts.resize(op.experts + 1, 0);
        (0..rows * top_k).for_each(|choice| starts[expert(choice) + 1] += 1);
        active.extend((0..op.experts as u32).filter(|&e| starts[e as usize + 1] > 0));
        for e in 0..op.experts {
            starts[e + 1] += starts[e];
        }
        members.clear();
        members.resize(rows * top_k, 0);
        choices.clear();
        choices.resize(rows * top_k, 0);
        for choice in 0..rows * top_k {
            // starts[e] runs ahead while expert e fills; afterwards it is where the next expert starts.
            let at = &mut starts[expert(choice)];
            members[*at as usize] = (choice / top_k) as u32;
            choices[*at as usize] = choice as u32;
            *at += 1;
        }
        // Now starts[e] is the end of expert e: keep the active ends, after a zero.
        for (i, &e) in active.iter().enumerate() {
            starts[i] = starts[e as usize];
        }
        starts.truncate(active.len());
        starts.insert(0, 0);
    }

    /// Expert and range of members of active expert `i`.
    fn group(&self, i: usize) -> (usize, Range<usize>) {
        (self.active[i] as usize, self.starts[i] as usize..self.starts[i + 1] as usize)
    }
}

/// An op of experts.
#[derive(Clone, Copy)]
pub struct Layer {
    /// Index into the program.
    pub index: usize,
    /// The op there.
    pub op: ExpertsOp,
}

impl Layer {
    fn bank<'a>(&self, step: &Step<'a>) -> &'a Bank {
        step.model.weights.bank(self.index)
    }

    /// How the down projections want their input, if prepared.
    fn inner_arrangement(&self, step: &Step<'_>) -> Option<Arrangement> {
        Arrangement::of(self.bank(step).down.weights.layout().format, step.model.precision.digits)
    }
}

/// Pieces one expert's outputs are cut into when unfused, at most.
const PIECES_MAX: usize = 4;
/// Items a worker should find, so that few experts still feed all workers and none waits long for the last
/// item.
const ITEMS_PER_WORKER: usize = 16;
/// Members of one item of the preparation.
const MEMBERS: usize = 16;
/// Columns of one item of the weighted sum.
const COLUMNS: usize = 512;

/// Fused: an item is an expert and a slice of its inner width, from gather to partial output. Unfused: a
/// piece of an expert's gate and up projections with the activation. The rows are grouped by expert before.
pub struct Inner(pub Layer);

impl Phase for Inner {
    fn items(&self, step: &Step<'_>) -> usize {
        let grouping = step.model.experts.grouping.get(0);
        grouping.fill(step.model.buffers.get(self.0.op.route), step.rows.len(), &self.0.op);
        let fused = step.path.kind == PathKind::Fused;
        let pieces = if fused { self.0.bank(step).slices() } else { pieces(step, grouping) };
        grouping.active.len() * pieces
    }

    fn item(&self, step: &Step<'_>, item: usize, worker: usize) {
        let (op, bank, grouping) = (&self.0.op, self.0.bank(step), step.model.experts.grouping.shared());
        match step.path.kind {
            PathKind::Fused => fused(step, op, bank, grouping, item, worker),
            PathKind::Unfused => gate_and_up(step, op, bank, grouping, item),
        }
    }

    fn span(&self, step: &Step<'_>, _item: usize, _part: usize) -> (Option<usize>, Stage) {
        let fused = step.path.kind == PathKind::Fused;
        (Some(self.0.index), if fused { Stage::Fused } else { Stage::GateUp })
    }
}

fn fused(step: &Step<'_>, op: &ExpertsOp, bank: &Bank, grouping: &Grouping, item: usize, worker: usize) {
    let model = step.model;
    let slices = bank.slices();
    let (expert, members) = grouping.group(item / slices);
    let slice = item % slices;
    let rows = inputs(model, op, bank, &grouping.rows[members.clone()]);
    let choices = &grouping.choices[members];
    let scratch = &mut model.scratch.get(worker).experts;
    fused_item(model.isa, bank, expert, slice, &rows, scratch, &mut |i, col, values| {
        let width = values.len().min(op.hidden - col);
        let row = choices[i] as usize * slices + slice;
        copy(model.experts.partials.part_mut(row, col, width), values);
    });
}

/// The chosen rows of x with the sums both projections need.
fn inputs<'a>(model: &'a Model, op: &ExpertsOp, bank: &Bank, index: &'a [u32]) -> Rows<'a> {
    let of = |projection: &Projection| Input {
        index: Some(index),
        ..input(model, op.x, projection.weights.layout(), 1, model.precision.digits, index.len())
    };
    let up = of(&bank.up);
    Rows { gate: bank.gate.as_ref().map_or(up, of), up, digits: model.precision.digits }
}

/// Pieces one expert's outputs are cut into when unfused: as few as feed the workers, since each brings x
/// into the order of its products anew. Bits do not depend on it.
fn pieces(step: &Step<'_>, grouping: &Grouping) -> usize {
    let wanted = ITEMS_PER_WORKER * step.model.workers;
    wanted.div_ceil(grouping.active.len().max(1)).clamp(1, PIECES_MAX)
}

/// Active expert and part of `n` blocks of an item.
fn piece(step: &Step<'_>, grouping: &Grouping, n: usize, item: usize) -> (usize, Range<usize>) {
    let pieces = pieces(step, grouping);
    let i = item % pieces;
    (item / pieces, n * i / pieces..n * (i + 1) / pieces)
}

/// Inner activations of one expert for one piece of its inner width.
fn gate_and_up(step: &Step<'_>, op: &ExpertsOp, bank: &Bank, grouping: &Grouping, item: usize) {
    let (model, work) = (step.model, &step.model.experts);
    let (active, blocks) = piece(step, grouping, bank.up.weights.layout().blocks(), item);
    let (expert, members) = grouping.group(active);
    let rows = inputs(model, op, bank, &grouping.rows[members.clone()]);
    let (first, end) = (blocks.start * LANES, (blocks.end * LANES).min(op.d_ff));
    if first >= end {
        return;
    }
    let project = |projection: &Projection, input: &Input<'_>, out: &Shared| {
        let bias = projection.bias(expert, 0, op.d_ff);
        let weights = projection.weights.expert(expert);
        matmul(model.isa, weights, blocks.clone(), 0..1, input, &mut |i, col, values| {
            let width = values.len().min(op.d_ff - col);
            let out = out.part_mut(members.start + i, col, width);
            copy(out, values);
            if let Some(bias) = bias {
                out.iter_mut().zip(&bias[col..]).for_each(|(y, b)| *y += b);
            }
        });
    };
    if let Some(gate) = &bank.gate {
        project(gate, &rows.gate, &work.gate);
    }
    project(&bank.up, &rows.up, &work.inner);
    for member in members.clone() {
        let gate = &work.gate.row(member)[first..end];
        activate(model.isa, bank.activation, gate, work.inner.part_mut(member, first, end - first));
    }
}

/// Unfused: the inner activations prepared for the down projections, some members an item.
pub struct Prepare(pub Layer);

impl Phase for Prepare {
    fn items(&self, step: &Step<'_>) -> usize {
        let needed = step.path.kind == PathKind::Unfused && self.0.inner_arrangement(step).is_some();
        if needed { (step.rows.len() * self.0.op.top_k).div_ceil(MEMBERS) } else { 0 }
    }

    fn item(&self, step: &Step<'_>, item: usize, _worker: usize) {
        let (op, work) = (&self.0.op, &step.model.experts);
        let Some(arrangement) = self.0.inner_arrangement(step) else { return };
        for member in item * MEMBERS..((item + 1) * MEMBERS).min(step.rows.len() * op.top_k) {
            let out = work.prepared.part_mut(member, 0, arrangement.len(op.d_ff));
            prepare(step.model.isa, arrangement, &work.inner.row(member)[..op.d_ff], out);
        }
    }

    fn span(&self, _step: &Step<'_>, _item: usize, _part: usize) -> (Option<usize>, Stage) {
        (Some(self.0.index), Stage::Inner)
    }
}

/// Unfused: the down projections, a piece of one expert's for all its rows an item.
pub struct Down(pub Layer);

impl Phase for Down {
    fn items(&self, step: &Step<'_>) -> usize {
        let grouping = step.model.experts.grouping.shared();
        let needed = step.path.kind == PathKind::Unfused;
        if needed { grouping.active.len() * pieces(step, grouping) } else { 0 }
    }

    fn item(&self, step: &Step<'_>, item: usize, _worker: usize) {
        let (op, work) = (&self.0.op, &step.model.experts);
        let grouping = work.grouping.shared();
        let weights = &self.0.bank(step).down.weights;
        let (active, blocks) = piece(step, grouping, weights.layout().blocks(), item);
        let (expert, members) = grouping.group(active);
        let x = Input {
            x: &work.inner.all()[members.start * work.inner.width..],
            stride: work.inner.width,
            index: None,
            rows: members.len(),
            prepared: &work.prepared.all()[members.start * work.prepared.width..],
            prepared_stride: work.prepared.width,
            arrangement: self.0.inner_arrangement(step),
        };
        let choices = &grouping.choices[members];
        let weights = weights.expert(expert);
        let layout = weights.layout;
        matmul(step.model.isa, weights, blocks, 0..layout.slices(), &x, &mut |i, col, values| {
            let width = values.len().min(op.hidden - col);
            copy(work.partials.part_mut(choices[i] as usize, col, width), values);
        });
    }

    fn span(&self, _step: &Step<'_>, _item: usize, _part: usize) -> (Option<usize>, Stage) {
        (Some(self.0.index), Stage::Down)
    }
}

/// The weighted sum over experts, some columns of a row an item.
pub struct Combine(pub Layer);

impl Phase for Combine {
    fn items(&self, step: &Step<'_>) -> usize {
        step.rows.len() * self.0.op.hidden.div_ceil(COLUMNS)
    }

    fn item(&self, step: &Step<'_>, item: usize, _worker: usize) {
        let (model, op, bank) = (step.model, &self.0.op, self.0.bank(step));
        let parts = op.hidden.div_ceil(COLUMNS);
        let (row, first) = (item / parts, item % parts * COLUMNS);
        let width = COLUMNS.min(op.hidden - first);
        let slices = if step.path.kind == PathKind::Fused { bank.slices() } else { 1 };
        let stride = model.experts.partials.width;
        let partials = Partials {
            values: &model.experts.partials.all()[row * op.top_k * slices * stride..],
            stride,
            slices,
            bias: bank.down.bias.as_ref().map(|bias| (&bias[..], op.hidden)),
        };
        let route = &model.buffers.get(op.route).row(row)[..2 * op.top_k];
        combine(model.isa, &partials, route, first, model.buffers.get(op.out).part_mut(row, first, width));
    }

    fn span(&self, _step: &Step<'_>, _item: usize, _part: usize) -> (Option<usize>, Stage) {
        (Some(self.0.index), Stage::Combine)
    }

    fn completes(&self, _part: usize) -> Range<usize> {
        self.0.index..self.0.index + 1
    }
}
