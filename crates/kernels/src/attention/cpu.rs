//! `attention` on f32 keys and values: chunk by chunk, then merged.

use super::{CHUNK, Shape};
use crate::simd::{LANES, Simd, dispatch, exp, load_at, sum, update};

/// Query heads that share one key/value head.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// `[count, head_dim]`.
    pub q: &'a [f32],
    /// How many.
    pub count: usize,
}

dispatch! {
    /// Partial attention of some heads over up to [`CHUNK`] positions.
    ///
    /// `keys [n, head_dim]`, `values [n, v_dim]`; `out [count, v_dim + 2]`: per head the unscaled output, then the
    /// maximum score and the sum of weights; `scores` is scratch of [`CHUNK`].
    pub fn chunk(shape: &Shape, heads: Heads<'_>, keys: &[f32], values: &[f32], scores: &mut [f32; CHUNK], out: &mut [f32]) = chunk_with
}

#[inline(always)]
fn chunk_with<S: Simd>(
    simd: S,
    shape: &Shape,
    heads: Heads<'_>,
    keys: &[f32],
    values: &[f32],
    scores: &mut [f32; CHUNK],
    out: &mut [f32],
) {
    let n = keys.len() / shape.head_dim;
    for (q, out) in heads.q.chunks_exact(shape.head_dim).zip(out.chunks_exact_mut(shape.v_dim + 2)) {
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(shape.head_dim)) {
            *score = dot(simd, q, key) * shape.scale;
            if let Some(cap) = shape.softcap {
                *score = cap * (*score / cap).tanh();
            }
        }
        let scores = &mut scores[..n];
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // NaN scores stay NaN through exp and reach the output, where the engine reports them.
        update(
            simd,
            scores,
            #[inline(always)]
            |s, _| exp(simd, simd.sub(s, simd.splat(max))),
        );
        let total: f32 = scores.iter().sum();
        let (output, tail) = out.split_at_mut(shape.v_dim);
        output.fill(0.0);
        for (&weight, value) in scores.iter().zip(values.chunks_exact(shape.v_dim)) {
            let weight = simd.splat(weight);
            update(
                simd,
                output,
                #[inline(always)]
                |y, at| simd.fma(weight, load_at(simd, value, at), y),
            );
        }
        (tail[0], tail[1]) = (max, total);
    }
}

/// q·k with two accumulators.
#[inline(always)]
fn dot<S: Simd>(simd: S, q: &[f32], key: &[f32]) -> f32 {
    let mut acc = [simd.splat(0.0); 2];
    for (i, at) in (0..q.len()).step_by(LANES).enumerate() {
        acc[i % 2] = simd.fma(load_at(simd, q, at), load_at(simd, key, at), acc[i % 2]);
    }
    sum(simd, simd.add(acc[0], acc[1]))
}

dispatch! {
    /// Merges the partial results of one head, in order, into `out [v_dim]`.
    ///
    /// `partials` yields `[v_dim + 2]` slices `stride` apart.
    pub fn merge(partials: &[f32], stride: usize, count: usize, sink: Option<f32>, out: &mut [f32]) = merge_with
}

#[inline(always)]
fn merge_with<S: Simd>(
    simd: S,
    partials: &[f32],
    stride: usize,
    count: usize,
    sink: Option<f32>,
    out: &mut [f32],
) {
    let v_dim = out.len();
    let part = |i: usize| &partials[i * stride..][..v_dim + 2];
    let max = (0..count).map(|i| part(i)[v_dim]).chain(sink).fold(f32::NEG_INFINITY, f32::max);
    let weight = |score: f32| f64::from(score - max).exp() as f32;
    let mut total = sink.map_or(0.0, weight);
    out.fill(0.0);
    for i in 0..count {
        let part = part(i);
        let factor = weight(part[v_dim]);
        total += factor * part[v_dim + 1];
        update(
            simd,
            out,
            #[inline(always)]
            |y, at| simd.fma(simd.splat(factor), load_at(simd, &part[..v_dim], at), y),
        );
    }
    let inverse = simd.splat(1.0 / total);
    update(
        simd,
        out,
        #[inline(always)]
        |y, _| simd.mul(y, inverse),
    );
}
