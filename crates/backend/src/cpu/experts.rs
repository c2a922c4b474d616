//! How the workers share out the routed experts: one pass of independent items when fused, rows grouped by expert
//! and three products when not. Both end in the same weighted sum.

use amoeba_kernels::activate::activate;
use amoeba_kernels::experts::cpu::{FUSED_ROWS_MAX, Rows, Scratch as ItemScratch};
use amoeba_kernels::experts::{Bank, Partials, combine, fused_item};
use amoeba_kernels::linear::{Input, group_sums, matmul};
use amoeba_kernels::simd::LANES;
use amoeba_plan::{ExpertsOp, Op, PathKind, Plan};

use super::ops::input;
use super::pool::Team;
use super::shared::Shared;
use super::weights::Weights;
use super::{Model, Step};

/// Memory of one experts op, shared by the workers and by all layers.
pub struct Workspace {
    /// Expert outputs before the weighted sum; a row per choice (and slice, when fused).
    partials: Shared,
    /// Unfused: gate and inner activations, a row per choice, grouped by expert.
    gate: Shared,
    inner: Shared,
    /// Unfused: group sums of the inner activations.
    sums: Shared,
}

/// One worker's memory.
pub struct Scratch {
    item: ItemScratch,
    grouping: Grouping,
}

/// Which rows go to which expert, grouped by expert in ascending order.
struct Grouping {
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
    pub fn new(plan: &Plan, weights: &Weights, rows: usize) -> Workspace {
        let most =
            |f: &dyn Fn(usize, &ExpertsOp) -> usize| ops(plan).map(|(i, op)| f(i, op)).max().unwrap_or(0);
        let choices = rows * most(&|_, op| op.top_k);
        let fused = rows.min(FUSED_ROWS_MAX) * most(&|i, op| op.top_k * weights.bank(i).slices());
        let d_ff = most(&|_, op| op.d_ff.next_multiple_of(LANES));
        Workspace {
            partials: Shared::zeroed(choices.max(fused), most(&|_, op| op.hidden.next_multiple_of(LANES))),
            gate: Shared::zeroed(choices, d_ff),
            inner: Shared::zeroed(choices, d_ff),
            sums: Shared::zeroed(choices, d_ff / LANES),
        }
    }
}

impl Scratch {
    /// Room for `rows` rows in the widest layer.
    pub fn new(plan: &Plan, weights: &Weights, rows: usize) -> Scratch {
        let slice_cols =
            ops(plan).map(|(i, _)| weights.bank(i).down.weights.layout().slice_cols).max().unwrap_or(0);
        let choices = rows * ops(plan).map(|(_, op)| op.top_k).max().unwrap_or(0);
        let experts = ops(plan).map(|(_, op)| op.experts).max().unwrap_or(0);
        let room = |n: usize| Vec::with_capacity(n);
        let grouping = Grouping {
            active: room(experts),
            starts: room(experts + 2),
            rows: room(choices),
            choices: room(choices),
        };
        Scratch { item: ItemScratch::new(slice_cols), grouping }
    }
}

impl Grouping {
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
        // Now starts[e] is the end of expert e: keep the active ends, behind a zero.
        for (i, &e) in active.iter().enumerate() {
            starts[i] = starts[e as usize];
        }
        starts.truncate(active.len());
        starts.insert(0, 0);
    }

    /// Expert and range of members of active expert `i`.
    fn group(&self, i: usize) -> (usize, std::ops::Range<usize>) {
        (self.active[i] as usize, self.starts[i] as usize..self.starts[i + 1] as usize)
    }
}

/// Runs the op at that index of the program on the way the step has taken.
pub fn run(step: &Step<'_>, team: Team<'_>, index: usize) {
    let model = step.model;
    let Op::Experts(op) = &model.plan.program[index].op else { unreachable!("op {index} is no experts op") };
    let bank = model.weights.bank(index);
    let Scratch { item, grouping } = &mut model.scratch.get(team.worker).experts;
    grouping.fill(model.buffers.get(op.route), step.rows.len(), op);
    let slices = match step.path.kind {
        PathKind::Fused => {
            fused(step, team, op, bank, grouping, item);
            bank.slices()
        }
        PathKind::Unfused => {
            unfused(step, team, op, bank, grouping);
            1
        }
    };
    team.barrier();
    weighted_sum(step, team, op, bank, slices);
}

/// One pass: every item is an expert and a slice of its inner width, for all rows that chose it.
fn fused(
    step: &Step<'_>,
    team: Team<'_>,
    op: &ExpertsOp,
    bank: &Bank,
    grouping: &Grouping,
    scratch: &mut ItemScratch,
) {
    let model = step.model;
    let slices = bank.slices();
    while let Some(item) = team.next(grouping.active.len() * slices) {
        let (expert, members) = grouping.group(item / slices);
        let slice = item % slices;
        let rows = inputs(step.model, op, bank, &grouping.rows[members.clone()]);
        let choices = &grouping.choices[members];
        fused_item(model.isa, bank, expert, slice, &rows, scratch, &mut |i, col, values| {
            let width = LANES.min(op.hidden - col);
            let row = choices[i] as usize * slices + slice;
            model.experts.partials.part_mut(row, col, width).copy_from_slice(&values[..width]);
        });
    }
}

/// The chosen rows of x with the sums both projections need.
fn inputs<'a>(model: &'a Model, op: &ExpertsOp, bank: &Bank, index: &'a [u32]) -> Rows<'a> {
    let of = |projection: &amoeba_kernels::experts::Projection| Input {
        index: Some(index),
        ..input(model, op.x, projection.weights.layout(), index.len())
    };
    let up = of(&bank.up);
    Rows { gate: bank.gate.as_ref().map_or(up, of), up }
}

/// Pieces one expert's outputs are cut into, so that few experts still feed all workers.
const PIECES: usize = 4;

/// Gather, three products, activation; expert outputs land in `partials`.
fn unfused(step: &Step<'_>, team: Team<'_>, op: &ExpertsOp, bank: &Bank, grouping: &Grouping) {
    let work = &step.model.experts;
    while let Some(item) = team.next(grouping.active.len() * PIECES) {
        gate_and_up(step, op, bank, grouping, item / PIECES, item % PIECES);
    }
    team.barrier();
    let down = bank.down.weights.layout();
    if down.format.has_biases() {
        while let Some(member) = team.next(grouping.rows.len()) {
            let sums = work.sums.part_mut(member, 0, op.d_ff / down.unit_cols());
            group_sums(step.model.isa, &work.inner.row(member)[..op.d_ff], down.unit_cols(), sums);
        }
        team.barrier();
    }
    while let Some(item) = team.next(grouping.active.len() * PIECES) {
        let (expert, members) = grouping.group(item / PIECES);
        let x = Input {
            x: &work.inner.all()[members.start * work.inner.width..],
            stride: work.inner.width,
            index: None,
            rows: members.len(),
            sums: &work.sums.all()[members.start * work.sums.width..],
            sums_stride: work.sums.width,
        };
        let choices = &grouping.choices[members];
        let weights = bank.down.weights.expert(expert);
        let blocks = piece(down.blocks(), item % PIECES);
        matmul(step.model.isa, weights, blocks, 0..down.slices(), &x, &mut |i, col, values| {
            let width = LANES.min(op.hidden - col);
            let out = work.partials.part_mut(choices[i] as usize, col, width);
            out.copy_from_slice(&values[..width]);
        });
    }
}

/// Part `i` of [`PIECES`] of `n` blocks.
fn piece(n: usize, i: usize) -> std::ops::Range<usize> {
    n * i / PIECES..n * (i + 1) / PIECES
}

/// Inner activations of one expert for one piece of its inner width.
fn gate_and_up(
    step: &Step<'_>,
    op: &ExpertsOp,
    bank: &Bank,
    grouping: &Grouping,
    active: usize,
    part: usize,
) {
    let (model, work) = (step.model, &step.model.experts);
    let (expert, members) = grouping.group(active);
    let rows = inputs(step.model, op, bank, &grouping.rows[members.clone()]);
    let blocks = piece(bank.up.weights.layout().blocks(), part);
    let (first, end) = (blocks.start * LANES, (blocks.end * LANES).min(op.d_ff));
    if first >= end {
        return;
    }
    let project = |projection: &amoeba_kernels::experts::Projection, input: &Input<'_>, out: &Shared| {
        let bias = projection.bias(expert, 0, op.d_ff);
        let weights = projection.weights.expert(expert);
        matmul(model.isa, weights, blocks.clone(), 0..1, input, &mut |i, col, values| {
            let width = LANES.min(op.d_ff - col);
            let out = out.part_mut(members.start + i, col, width);
            out.copy_from_slice(&values[..width]);
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

/// Columns of one item of the weighted sum.
const COLUMNS: usize = 512;

fn weighted_sum(step: &Step<'_>, team: Team<'_>, op: &ExpertsOp, bank: &Bank, slices: usize) {
    let model = step.model;
    let parts = op.hidden.div_ceil(COLUMNS);
    while let Some(item) = team.next(step.rows.len() * parts) {
        let (row, first) = (item / parts, item % parts * COLUMNS);
        let width = COLUMNS.min(op.hidden - first);
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
}
