//! How the workers share out attention: many rows by blocks of rows and sets of query heads, a few rows also
//! by chunks of positions, whose partial results a second phase joins. The query heads of a set have their
//! keys in common; there are several sets to a key/value head where more query heads share it than a kernel
//! takes at a time.

use std::ops::Range;

use amoeba_kernels::attention::{self, CHUNK, QUERIES, Query, Scratch, Shape};
use amoeba_plan::{AttentionOp, Op, Plan, Stage};

use super::{Phase, Step};
use crate::cpu::shared::Shared;
use crate::{Error, Limits};

/// Below this many pairs of row and set of heads the positions are split among workers too. Bits do not
/// depend on it.
const PAIRS_MIN: usize = 32;

/// Memory of attention: one worker's own.
pub struct Workspace {
    scratch: Scratch,
    /// Partial results of the chunk at work, and of all chunks before it.
    partial: Vec<f32>,
    state: Vec<f32>,
}

impl Workspace {
    /// Room for the widest layer.
    pub fn new(plan: &Plan) -> Workspace {
        let room = vec![0.0; QUERIES * partial_max(plan)];
        Workspace { scratch: Scratch::default(), partial: room.clone(), state: room }
    }
}

fn ops(plan: &Plan) -> impl Iterator<Item = &AttentionOp> {
    plan.program.iter().filter_map(|step| match &step.op {
        Op::Attention(op) => Some(op),
        _ => None,
    })
}

fn partial_max(plan: &Plan) -> usize {
    ops(plan).map(|op| attention::partial_len(&Shape::of(op))).max().unwrap_or(0)
}

/// Room for the partial results of all chunks of a few rows: row `pair · chunks + chunk`, a partial per query
/// head.
pub fn partials(plan: &Plan, limits: Limits) -> Result<Shared, Error> {
    let [rows, width] = partials_size(plan, limits);
    Shared::zeroed(rows, width)
}

/// Rows and width of [`partials`].
pub fn partials_size(plan: &Plan, limits: Limits) -> [usize; 2] {
    let set = ops(plan).map(set_len).max().unwrap_or(0);
    [PAIRS_MIN * chunks_max(limits), set * partial_max(plan)]
}

/// Most chunks a row sees; a window may begin and end inside one.
fn chunks_max(limits: Limits) -> usize {
    limits.context.div_ceil(CHUNK) + 1
}

/// Query heads of a set, at most.
fn set_len(op: &AttentionOp) -> usize {
    let group = op.heads / op.kv_heads;
    group.div_ceil(group.div_ceil(QUERIES))
}

/// Sets of all query heads of a row.
fn sets(op: &AttentionOp) -> usize {
    op.kv_heads * (op.heads / op.kv_heads).div_ceil(set_len(op))
}

/// The query heads of a set, and the head of their keys.
fn set(op: &AttentionOp, set: usize) -> (Range<usize>, usize) {
    let (group, per_group) = (op.heads / op.kv_heads, sets(op) / op.kv_heads);
    let (kv_head, part) = (set / per_group, set % per_group);
    let first = part * set_len(op);
    (kv_head * group + first..kv_head * group + (first + set_len(op)).min(group), kv_head)
}

/// Whether positions are split too: there are few pairs and more than one chunk.
fn split(step: &Step<'_>, op: &AttentionOp) -> bool {
    step.rows.len() * sets(op) < PAIRS_MIN
        && (0..step.rows.len()).any(|row| chunks_of(step, op, row).len() > 1)
}

/// Rows of an item when positions are not split.
fn block_rows(op: &AttentionOp) -> usize {
    QUERIES / set_len(op)
}

/// First chunk, and one past the last, that a row sees.
fn chunks_of(step: &Step<'_>, op: &AttentionOp, row: usize) -> Range<usize> {
    let position = step.rows[row].position;
    attention::first_visible(position, op.window) / CHUNK..(position + 1).div_ceil(CHUNK)
}

/// All of attention, or its partial results over chunks of positions.
#[derive(Clone, Copy)]
pub struct Attention {
    /// Index into the program.
    pub index: usize,
    /// The op there.
    pub op: AttentionOp,
}

impl Phase for Attention {
    fn items(&self, step: &Step<'_>) -> usize {
        let op = &self.op;
        if split(step, op) {
            let chunks: usize = (0..step.rows.len()).map(|row| chunks_of(step, op, row).len()).sum();
            chunks * sets(op)
        } else {
            step.rows.len().div_ceil(block_rows(op)) * sets(op)
        }
    }

    fn item(&self, step: &Step<'_>, item: usize, worker: usize) {
        let op = &self.op;
        let (rest, (heads, kv_head)) = (item / sets(op), set(op, item % sets(op)));
        let work = &mut step.model.scratch.get(worker).attention;
        if !split(step, op) {
            let first = rest * block_rows(op);
            let rows = first..(first + block_rows(op)).min(step.rows.len());
            return whole(step, op, rows, (heads, kv_head), work);
        }
        let mut chunk = rest;
        for row in 0..step.rows.len() {
            let chunks = chunks_of(step, op, row);
            if chunk < chunks.len() {
                let pair = row * sets(op) + item % sets(op);
                let at = pair * chunks_max(step.model.limits) + chunk;
                let count = heads.len();
                let out =
                    step.model.attention.part_mut(at, 0, count * attention::partial_len(&Shape::of(op)));
                let pairs = Pairs { rows: row..row + 1, heads, kv_head, first: 0, count };
                return pairs.chunk(step, op, chunks.start + chunk, &mut work.scratch, out);
            }
            chunk -= chunks.len();
        }
    }

    fn span(&self, _step: &Step<'_>, _item: usize, _part: usize) -> (Option<usize>, Stage) {
        (Some(self.index), Stage::Whole)
    }
}

/// The chunks of a row and set of heads joined; nothing to do if positions are not split.
pub struct Join(pub Attention);

impl Phase for Join {
    fn items(&self, step: &Step<'_>) -> usize {
        if split(step, &self.0.op) { step.rows.len() * sets(&self.0.op) } else { 0 }
    }

    fn item(&self, step: &Step<'_>, item: usize, worker: usize) {
        let (model, op) = (step.model, &self.0.op);
        let (row, (heads, _)) = (item / sets(op), set(op, item % sets(op)));
        let len = attention::partial_len(&Shape::of(op));
        let state = &mut model.scratch.get(worker).attention.state[..len];
        let first = item * chunks_max(model.limits);
        for (i, head) in heads.enumerate() {
            state.copy_from_slice(&model.attention.row(first)[i * len..][..len]);
            for chunk in 1..chunks_of(step, op, row).len() {
                attention::fold(model.isa, state, &model.attention.row(first + chunk)[i * len..][..len]);
            }
            store(step, op, row, head, state);
        }
    }

    fn span(&self, _step: &Step<'_>, _item: usize, _part: usize) -> (Option<usize>, Stage) {
        (Some(self.0.index), Stage::Join)
    }

    fn completes(&self, _part: usize) -> Range<usize> {
        self.0.index..self.0.index + 1
    }
}

/// All positions of some rows of one set of heads.
fn whole(
    step: &Step<'_>,
    op: &AttentionOp,
    rows: Range<usize>,
    (heads, kv_head): (Range<usize>, usize),
    work: &mut Workspace,
) {
    let len = attention::partial_len(&Shape::of(op));
    let mut start = rows.start;
    while start < rows.end {
        // Rows of one sequence share its cache.
        let slot = step.rows[start].slot;
        let end = (start..rows.end).find(|&row| step.rows[row].slot != slot).unwrap_or(rows.end);
        let queries = (end - start) * heads.len();
        for first in (0..queries).step_by(QUERIES) {
            let (heads, count) = (heads.clone(), QUERIES.min(queries - first));
            let pairs = Pairs { rows: start..end, heads, kv_head, first, count };
            let state = &mut work.state[..pairs.count * len];
            let partial = &mut work.partial[..pairs.count * len];
            for (i, chunk) in pairs.chunks(step, op).enumerate() {
                let out = if i == 0 { &mut *state } else { &mut *partial };
                pairs.chunk(step, op, chunk, &mut work.scratch, out);
                if i > 0 {
                    for (state, partial) in state.chunks_exact_mut(len).zip(partial.chunks_exact(len)) {
                        attention::fold(step.model.isa, state, partial);
                    }
                }
            }
            for (i, state) in state.chunks_exact(len).enumerate() {
                let (row, head) = pairs.row_and_head(i);
                store(step, op, row, head, state);
            }
        }
        start = end;
    }
}

/// Some of the pairs of row and query head of one set.
struct Pairs {
    rows: Range<usize>,
    heads: Range<usize>,
    kv_head: usize,
    first: usize,
    count: usize,
}

impl Pairs {
    fn row_and_head(&self, i: usize) -> (usize, usize) {
        let (pair, heads) = (self.first + i, self.heads.len());
        (self.rows.start + pair / heads, self.heads.start + pair % heads)
    }

    /// Chunks that any of the rows sees.
    fn chunks(&self, step: &Step<'_>, op: &AttentionOp) -> Range<usize> {
        let of = |row| chunks_of(step, op, row);
        let start = self.rows.clone().map(|row| of(row).start).min().unwrap_or(0);
        let end = self.rows.clone().map(|row| of(row).end).max().unwrap_or(0);
        start..end
    }

    /// Partial results over one chunk.
    fn chunk(&self, step: &Step<'_>, op: &AttentionOp, chunk: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let (model, shape) = (step.model, Shape::of(op));
        let start = chunk * CHUNK;
        let mut queries = [Query::default(); QUERIES];
        for (i, query) in queries[..self.count].iter_mut().enumerate() {
            let (row, head) = self.row_and_head(i);
            let position = step.rows[row].position;
            let clip = |p: usize| p.clamp(start, start + CHUNK) - start;
            let q = &model.buffers.get(op.q).row(row)[head * op.head_dim..];
            *query = Query {
                q: &q[..op.head_dim],
                first: clip(attention::first_visible(position, op.window)),
                end: clip(position + 1),
            };
        }
        let cached = model.caches.head(op.cache, step.rows[self.rows.start].slot, self.kv_head);
        let len = attention::partial_len(&shape);
        let (queries, out) = (&queries[..self.count], &mut out[..self.count * len]);
        attention::chunk(model.isa, &shape, queries, cached.from(start, &shape), scratch, out);
    }
}

/// Writes the output of one query head.
fn store(step: &Step<'_>, op: &AttentionOp, row: usize, head: usize, state: &[f32]) {
    let model = step.model;
    let sink = model.weights.vector(op.sinks).map(|sinks| sinks[head]);
    let out = model.buffers.get(op.out).part_mut(row, head * op.v_dim, op.v_dim);
    attention::finish(model.isa, state, sink, out);
}
