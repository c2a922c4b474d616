//! How the workers share out ops that carry a state: an item is some channels of one sequence over all its
//! rows, in order, so that bits depend on nothing but the sequence.

use std::ops::Range;

use amoeba_kernels::simd::LANES;
use amoeba_kernels::{conv, delta_net, ssm};
use amoeba_plan::{CacheId, ConvOp, DeltaNetOp, Op, Plan, SsmOp, Stage};

use super::{Model, Phase, Step};
use crate::Row;

/// Items per worker if there is one row a sequence: none waits long for the last one.
const ITEMS_PER_WORKER: usize = 4;
/// Floats of state that an item of many rows keeps in the first cache.
const STATE_MAX: usize = 8 << 10;

/// How the state of an op lies: units one after another, each in blocks of sixteen channels.
struct Layout {
    cache: CacheId,
    /// Heads, bands, or one for all channels.
    units: usize,
    /// Channels of a unit.
    channels: usize,
    /// Floats of a block.
    block: usize,
}

impl Layout {
    fn of(op: &Op) -> Option<Layout> {
        let layout = |cache, units, channels, block| Some(Layout { cache, units, channels, block });
        match op {
            Op::Conv(op) => layout(op.cache, 1, op.channels, conv::state_len(LANES, op.taps)),
            Op::DeltaNet(op) => layout(op.cache, op.v_heads, op.v_dim, delta_net::state_len(LANES, op.k_dim)),
            Op::Ssm(op) => {
                let shape = ssm::Shape::of(op);
                layout(op.cache, shape.bands(), shape.width(), shape.state_len(LANES))
            }
            _ => None,
        }
    }

    fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Blocks of an item: few enough to share out, and if there are many rows, to stay in cache meanwhile.
    fn blocks_per_item(&self, step: &Step<'_>, runs: usize) -> usize {
        let parts = (ITEMS_PER_WORKER * step.model.workers).div_ceil(runs * self.units);
        let shared = self.blocks().div_ceil(parts.clamp(1, self.blocks()));
        let cached = if step.rows.len() > runs { STATE_MAX / self.block.max(1) } else { shared };
        shared.min(cached).max(1)
    }
}

/// Floats that a recurrent cache takes per sequence; none if no op uses it.
pub fn state_len(plan: &Plan, cache: CacheId) -> usize {
    let layouts = plan.program.iter().filter_map(|step| Layout::of(&step.op));
    let lens = layouts
        .filter(|layout| layout.cache == cache)
        .map(|layout| layout.units * layout.blocks() * layout.block);
    lens.max().unwrap_or(0)
}

/// Brings the vectors of recurrent ops into the kernels' order.
pub fn arrange(plan: &Plan, vectors: &mut [Vec<f32>]) {
    let mut done = vec![false; vectors.len()];
    for step in &plan.program {
        let (id, arranged) = match &step.op {
            Op::Conv(op) => (op.weight, conv::pack(&vectors[op.weight.0], op.taps)),
            Op::DeltaNet(op) => (op.a_log, delta_net::rates(&vectors[op.a_log.0])),
            Op::Ssm(op) => (op.a_log, ssm::Shape::of(op).rates(&vectors[op.a_log.0], op.per_state)),
            _ => continue,
        };
        // Ops may share a weight.
        if !std::mem::replace(&mut done[id.0], true) {
            vectors[id.0] = arranged;
        }
    }
}

/// One worker's memory, for the widest layer.
pub fn scratch(plan: &Plan) -> delta_net::Scratch {
    let widths = plan.program.iter().map(|step| if let Op::DeltaNet(op) = &step.op { op.k_dim } else { 0 });
    delta_net::Scratch::new(widths.max().unwrap_or(0))
}

/// Stretches of rows of one sequence.
fn runs(rows: &[Row]) -> impl Iterator<Item = Range<usize>> {
    rows.chunk_by(|a, b| a.slot == b.slot).scan(0, |end, run| {
        let start = *end;
        *end += run.len();
        Some(start..*end)
    })
}

/// Some channels of one unit over the rows of one sequence.
struct Part {
    rows: Range<usize>,
    unit: usize,
    channels: Range<usize>,
}

/// An op that carries a state.
pub struct Recurrent {
    index: usize,
    op: Op,
    layout: Layout,
}

impl Recurrent {
    /// The phase of the op at that index of the program, if it carries a state.
    pub fn new(index: usize, op: &Op) -> Option<Recurrent> {
        Some(Recurrent { index, op: op.clone(), layout: Layout::of(op)? })
    }
}

impl Phase for Recurrent {
    fn items(&self, step: &Step<'_>) -> usize {
        let (layout, runs) = (&self.layout, runs(step.rows).count());
        runs * layout.units * layout.blocks().div_ceil(layout.blocks_per_item(step, runs))
    }

    fn item(&self, step: &Step<'_>, item: usize, worker: usize) {
        let layout = &self.layout;
        let count = runs(step.rows).count();
        let size = layout.blocks_per_item(step, count);
        let parts = layout.blocks().div_ceil(size);
        let (run, unit, part) = (item / parts / layout.units, item / parts % layout.units, item % parts);
        let Some(rows) = runs(step.rows).nth(run) else { unreachable!("item {item} of {count} runs") };
        let blocks = part * size..((part + 1) * size).min(layout.blocks());
        let first = step.rows[rows.start];
        let at = (unit * layout.blocks() + blocks.start) * layout.block;
        let state = step.model.caches.state(layout.cache, first.slot, at, blocks.len() * layout.block);
        if first.position == 0 {
            state.fill(0.0);
        }
        let channels = blocks.start * LANES..(blocks.end * LANES).min(layout.channels);
        let part = Part { rows, unit, channels };
        match &self.op {
            Op::Conv(op) => convolve(step, op, &part, state),
            Op::DeltaNet(op) => delta_rule(step, op, &part, state, worker),
            Op::Ssm(op) => recur(step, op, &part, state),
            other => unreachable!("{} carries no state", other.name()),
        }
    }

    fn span(&self, _step: &Step<'_>, _item: usize, _part: usize) -> (Option<usize>, Stage) {
        (Some(self.index), Stage::Whole)
    }

    fn completes(&self, _part: usize) -> Range<usize> {
        self.index..self.index + 1
    }
}

fn convolve(step: &Step<'_>, op: &ConvOp, part: &Part, state: &mut [f32]) {
    let model = step.model;
    let channels = part.channels.clone();
    let filter = conv::Filter {
        weights: &vector(model, op.weight)[channels.start * (op.taps + 1)..],
        bias: model.weights.vector(op.bias).map(|bias| &bias[channels.clone()]),
        taps: op.taps,
        silu: op.silu,
    };
    for row in part.rows.clone() {
        let oldest = step.rows[row].position % op.taps.max(1);
        let x = &model.buffers.get(op.x).row(row)[channels.clone()];
        let out = model.buffers.get(op.out).part_mut(row, channels.start, channels.len());
        conv::step(model.isa, &filter, oldest, x, state, out);
    }
}

fn delta_rule(step: &Step<'_>, op: &DeltaNetOp, part: &Part, state: &mut [f32], worker: usize) {
    let model = step.model;
    let row_of = |id, row| model.buffers.get(id).row(row);
    let (h, k_dim) = (part.unit, op.k_dim);
    let decays = if op.per_channel { k_dim } else { 1 };
    let key = h / (op.v_heads / op.k_heads) * k_dim;
    let values = h * op.v_dim + part.channels.start..h * op.v_dim + part.channels.end;
    let head = delta_net::Head {
        rate: vector(model, op.a_log)[h],
        dt_bias: &vector(model, op.dt_bias)[h * decays..][..decays],
    };
    let scratch = &mut model.scratch.get(worker).recurrent;
    for row in part.rows.clone() {
        let token = delta_net::Token {
            q: &row_of(op.q, row)[key..][..k_dim],
            k: &row_of(op.k, row)[key..][..k_dim],
            v: &row_of(op.v, row)[values.clone()],
            decay: &row_of(op.decay, row)[h * decays..][..decays],
            beta: row_of(op.beta, row)[h],
        };
        let out = model.buffers.get(op.out).part_mut(row, values.start, values.len());
        delta_net::step(model.isa, &head, &token, scratch, state, out);
    }
}

fn recur(step: &Step<'_>, op: &SsmOp, part: &Part, state: &mut [f32]) {
    let model = step.model;
    let row_of = |id, row| model.buffers.get(id).row(row);
    let (shape, band) = (ssm::Shape::of(op), part.unit);
    let group = band / shape.bands_per_group() * op.state;
    let first = band * shape.width();
    let channels = first + part.channels.start..first + part.channels.end;
    let side_by_side = shape.heads_side_by_side();
    let heads = if side_by_side { channels.clone() } else { band..band + 1 };
    let rates = vector(model, op.a_log);
    let space = ssm::Channels {
        rates: match (op.per_state, side_by_side) {
            (true, true) => {
                &rates[band * shape.state_len(shape.width()) + shape.state_len(part.channels.start)..]
            }
            (true, false) => &rates[band * op.state..][..op.state],
            (false, _) => &rates[heads.clone()],
        },
        per_state: op.per_state,
        heads_side_by_side: side_by_side,
        d: &vector(model, op.d)[heads.clone()],
        dt_bias: model.weights.vector(op.dt_bias).map(|bias| &bias[heads.clone()]),
        dt_limit: op.dt_limit,
    };
    for row in part.rows.clone() {
        let token = ssm::Token {
            x: &row_of(op.x, row)[channels.clone()],
            b: &row_of(op.b, row)[group..][..op.state],
            c: &row_of(op.c, row)[group..][..op.state],
            dt: &row_of(op.dt, row)[heads.clone()],
        };
        let out = model.buffers.get(op.out).part_mut(row, channels.start, channels.len());
        ssm::step(model.isa, &space, &token, state, out);
    }
}

/// A vector that an op cannot do without.
fn vector(model: &Model, id: amoeba_plan::WeightId) -> &[f32] {
    model.weights.vector(Some(id)).unwrap_or_default()
}
