//! `attention` on cached keys and values: chunk by chunk, then folded.

#![allow(
    clippy::needless_range_loop,
    reason = "plain loops only: an adaptor that is not inlined loses the instruction set"
)]

use std::ops::Range;

use super::cache::{Element, Head};
use super::tiles::{Scores, outputs, scores, soften};
use super::{CHUNK, QUERIES, Shape};
use crate::simd::{LANES, Simd, dispatch, load_at, update};

/// One query head at one position.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// `[head_dim]`.
    pub q: &'a [f32],
    /// First position of the chunk that it sees, counted from the chunk's start.
    pub first: usize,
    /// One past the last; equal to `first` if it sees none.
    pub end: usize,
}

/// Scratch of [`chunk`].
#[derive(Clone, Debug)]
pub struct Scratch(Box<[[f32; CHUNK]; QUERIES]>);

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch(Box::new([[0.0; CHUNK]; QUERIES]))
    }
}

/// f32 of a partial result: the unscaled output, padded to sixteen, then maximum score and sum of weights.
pub fn partial_len(shape: &Shape) -> usize {
    shape.v_dim.next_multiple_of(LANES) + LANES
}

dispatch! {
    /// Partial attention of up to [`QUERIES`] queries over the chunk at the start of `head`.
    ///
    /// `out` holds [`partial_len`] f32 per query; the maximum of a query that sees nothing is -∞.
    pub fn chunk(
        shape: &Shape,
        queries: &[Query<'_>],
        head: Head<'_>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) = chunk_with
}

#[inline(always)]
fn chunk_with<S: Simd>(
    simd: S,
    shape: &Shape,
    queries: &[Query<'_>],
    head: Head<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let scores = &mut scratch.0[..queries.len()];
    match head {
        Head::F32(keys, values) => attend(simd, shape, queries, (keys, values), scores, out),
        Head::F16(keys, values) => attend(simd, shape, queries, (keys, values), scores, out),
    }
}

#[inline(always)]
fn attend<S: Simd, E: Element>(
    simd: S,
    shape: &Shape,
    queries: &[Query<'_>],
    (keys, values): (&[E], &[E]),
    weights: &mut Scores,
    out: &mut [f32],
) {
    let stride = partial_len(shape);
    let mut rows = [&[][..]; QUERIES];
    let (mut start, mut end) = (CHUNK, 0);
    for i in 0..queries.len() {
        rows[i] = queries[i].q;
        if queries[i].first < queries[i].end {
            start = start.min(queries[i].first);
            end = end.max(queries[i].end);
        }
    }
    let span: Range<usize> = start.min(end)..end;
    let blocks = span.start / LANES..span.end.div_ceil(LANES);
    scores(simd, shape, &rows[..queries.len()], keys, blocks, weights);
    for i in 0..queries.len() {
        let Query { first, end, .. } = queries[i];
        let tail = (i + 1) * stride - LANES;
        if first < end {
            (out[tail], out[tail + 1]) = soften(simd, shape, &mut weights[i], first..end, span.clone());
        } else {
            weights[i][span.clone()].fill(0.0);
            (out[tail], out[tail + 1]) = (f32::NEG_INFINITY, 0.0);
        }
    }
    outputs(simd, shape, weights, values, span, (out, stride));
}

dispatch! {
    /// `state` and the partial result of the positions after it, as one partial result in `state`.
    pub fn fold(state: &mut [f32], partial: &[f32]) = fold_with
}

#[inline(always)]
fn fold_with<S: Simd>(simd: S, state: &mut [f32], partial: &[f32]) {
    let tail = state.len() - LANES;
    if partial[tail] == f32::NEG_INFINITY {
        return;
    }
    if state[tail] == f32::NEG_INFINITY {
        return state.copy_from_slice(partial);
    }
    let max = state[tail].max(partial[tail]);
    let (old, new) = (weight(state[tail], max), weight(partial[tail], max));
    let sum = old * state[tail + 1] + new * partial[tail + 1];
    update(
        simd,
        &mut state[..tail],
        #[inline(always)]
        |y, at| simd.fma(simd.splat(new), load_at(simd, &partial[..tail], at), simd.mul(simd.splat(old), y)),
    );
    (state[tail], state[tail + 1]) = (max, sum);
}

/// `e^(score - max)`.
#[inline(always)]
fn weight(score: f32, max: f32) -> f32 {
    f64::from(score - max).exp() as f32
}

dispatch! {
    /// The attention output `[v_dim]` of a partial result over all visible positions and an optional sink
    /// logit.
    pub fn finish(state: &[f32], sink: Option<f32>, out: &mut [f32]) = finish_with
}

#[inline(always)]
fn finish_with<S: Simd>(simd: S, state: &[f32], sink: Option<f32>, out: &mut [f32]) {
    let tail = state.len() - LANES;
    let (max, sum) = (state[tail], state[tail + 1]);
    let (factor, total) = match sink {
        None => (1.0, sum),
        Some(sink) => {
            let most = max.max(sink);
            let factor = weight(max, most);
            (factor, factor * sum + weight(sink, most))
        }
    };
    let scale = simd.splat(factor / total);
    update(
        simd,
        out,
        #[inline(always)]
        |_, at| simd.mul(load_at(simd, &state[..tail], at), scale),
    );
}
