//! The two products of attention, a few queries at a time: every key and value loaded once per tile.
//!
//! Each score and each output is one chain of fused multiply-adds in order of dimension or position, whatever
//! the tile, so its bits do not depend on how many queries share it. Plain loops only, as in `linear/cpu.rs`.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use super::cache::Element;
use super::{CHUNK, Shape};
use crate::simd::{LANES, Simd, lanes, lanes_mut};

/// Scores of up to [`CHUNK`] positions, a row per query.
pub(super) type Scores = [[f32; CHUNK]];

/// `scores[r][16·b..] = Σ_d q_r[d] · k_d` for the blocks `blocks`; `q` holds the queries of a pass.
#[inline(always)]
pub(super) fn scores<S: Simd, E: Element>(
    simd: S,
    shape: &Shape,
    q: &[&[f32]],
    keys: &[E],
    blocks: std::ops::Range<usize>,
    out: &mut Scores,
) {
    let mut first = 0;
    while first < q.len() {
        let (mut block, rest) = (blocks.start, q.len() - first);
        while block < blocks.end {
            let pair = block + 1 < blocks.end;
            let at = (first, block);
            match (rest, pair) {
                (1, true) => score_tile::<S, E, 1, 2>(simd, shape, q, keys, at, out),
                (1, false) => score_tile::<S, E, 1, 1>(simd, shape, q, keys, at, out),
                (2..=4, true) => score_tile::<S, E, 4, 2>(simd, shape, q, keys, at, out),
                (2..=4, false) => score_tile::<S, E, 4, 1>(simd, shape, q, keys, at, out),
                (_, true) => score_tile::<S, E, 8, 2>(simd, shape, q, keys, at, out),
                (_, false) => score_tile::<S, E, 8, 1>(simd, shape, q, keys, at, out),
            }
            block += if pair { 2 } else { 1 };
        }
        first += match rest {
            1 => 1,
            2..=4 => 4,
            _ => 8,
        };
    }
}

/// `R` queries from `first` (past the last, the last again) against `B` blocks of sixteen positions.
#[inline(always)]
fn score_tile<S: Simd, E: Element, const R: usize, const B: usize>(
    simd: S,
    shape: &Shape,
    q: &[&[f32]],
    keys: &[E],
    (first, block): (usize, usize),
    out: &mut Scores,
) {
    let dim = shape.head_dim;
    let mut rows = [&[][..]; R];
    for r in 0..R {
        rows[r] = &q[(first + r).min(q.len() - 1)][..dim];
    }
    let mut columns = [&[][..]; B];
    for b in 0..B {
        columns[b] = &keys[(block + b) * dim * LANES..][..dim * LANES].as_chunks::<LANES>().0[..dim];
    }
    let mut acc = [[simd.splat(0.0); B]; R];
    for d in 0..dim {
        for b in 0..B {
            let k = E::load(simd, &columns[b][d]);
            for r in 0..R {
                acc[r][b] = simd.fma(simd.splat(rows[r][d]), k, acc[r][b]);
            }
        }
    }
    for r in 0..R {
        if first + r < q.len() {
            for b in 0..B {
                simd.store(acc[r][b], lanes_mut(&mut out[first + r], (block + b) * LANES));
            }
        }
    }
}

/// `out[r] = Σ_p weights[r][p] · v_p` for the positions `positions`; rows of `out` are `stride` apart.
#[inline(always)]
pub(super) fn outputs<S: Simd, E: Element>(
    simd: S,
    shape: &Shape,
    weights: &Scores,
    values: &[E],
    positions: std::ops::Range<usize>,
    (out, stride): (&mut [f32], usize),
) {
    let vectors = shape.v_dim.div_ceil(LANES);
    let mut first = 0;
    while first < weights.len() {
        let single = weights.len() - first == 1;
        let weights = &weights[first..];
        let out = &mut out[first * stride..];
        let mut vector = 0;
        while vector < vectors {
            let at = (vector, vectors);
            let p = positions.clone();
            vector += match (single, vectors - vector) {
                (true, 8..) => value_tile::<S, E, 1, 8>(simd, weights, values, p, at, (out, stride)),
                (true, 4..) => value_tile::<S, E, 1, 4>(simd, weights, values, p, at, (out, stride)),
                (true, _) => value_tile::<S, E, 1, 1>(simd, weights, values, p, at, (out, stride)),
                (false, 4..) => value_tile::<S, E, 4, 4>(simd, weights, values, p, at, (out, stride)),
                (false, _) => value_tile::<S, E, 4, 1>(simd, weights, values, p, at, (out, stride)),
            };
        }
        first += if single { 1 } else { 4 };
    }
}

/// `R` queries (past the last, the last again) against `N` vectors of every value; returns `N`.
#[inline(always)]
fn value_tile<S: Simd, E: Element, const R: usize, const N: usize>(
    simd: S,
    weights: &Scores,
    values: &[E],
    positions: std::ops::Range<usize>,
    (vector, vectors): (usize, usize),
    (out, stride): (&mut [f32], usize),
) -> usize {
    let count = weights.len();
    let mut rows = [&weights[0]; R];
    for r in 0..R {
        rows[r] = &weights[r.min(count - 1)];
    }
    let mut acc = [[simd.splat(0.0); N]; R];
    for p in positions {
        let value = &values[(p * vectors + vector) * LANES..].as_chunks::<LANES>().0[..N];
        for n in 0..N {
            let v = E::load(simd, &value[n]);
            for r in 0..R {
                acc[r][n] = simd.fma(simd.splat(rows[r][p]), v, acc[r][n]);
            }
        }
    }
    for r in 0..R.min(count) {
        for n in 0..N {
            simd.store(acc[r][n], lanes_mut(out, r * stride + (vector + n) * LANES));
        }
    }
    N
}

/// Scores to softmax weights of the positions `visible`, zero elsewhere in `positions`; returns maximum and
/// sum.
#[inline(always)]
pub(super) fn soften<S: Simd>(
    simd: S,
    shape: &Shape,
    scores: &mut [f32; CHUNK],
    visible: std::ops::Range<usize>,
    positions: std::ops::Range<usize>,
) -> (f32, f32) {
    let (start, end) = (visible.start / LANES * LANES, visible.end.next_multiple_of(LANES));
    let mut most = simd.splat(f32::NEG_INFINITY);
    for at in (start..end).step_by(LANES) {
        let mut s = simd.mul(simd.load(lanes(scores, at)), simd.splat(shape.scale));
        if let Some(cap) = shape.softcap {
            let capped = crate::simd::tanh(simd, simd.mul(s, simd.splat(1.0 / cap)));
            s = simd.mul(simd.splat(cap), capped);
        }
        simd.store(s, lanes_mut(scores, at));
    }
    scores[start..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..end].fill(f32::NEG_INFINITY);
    for at in (start..end).step_by(LANES) {
        most = simd.max(most, simd.load(lanes(scores, at)));
    }
    let mut all = [0.0; LANES];
    simd.store(most, &mut all);
    let mut max = f32::NEG_INFINITY;
    for i in 0..LANES {
        max = max.max(all[i]);
    }
    // NaN scores stay NaN through exp and reach the output, where the engine reports them.
    for at in (start..end).step_by(LANES) {
        let s = simd.load(lanes(scores, at));
        simd.store(crate::simd::exp(simd, simd.sub(s, simd.splat(max))), lanes_mut(scores, at));
    }
    // exp saturates above zero.
    scores[positions.start..visible.start].fill(0.0);
    scores[start..visible.start].fill(0.0);
    scores[visible.end..positions.end.max(end)].fill(0.0);
    let mut total = simd.splat(0.0);
    for at in (start..end).step_by(LANES) {
        total = simd.add(total, simd.load(lanes(scores, at)));
    }
    (max, crate::simd::sum(simd, total))
}
