//! `ssm` over sixteen channels at a time.

use super::{Channels, Token};
use crate::simd::{LANES, Simd, dispatch, exp, load_at, softplus, store_at};

dispatch! {
    /// One position of some channels of a band: `state` as [`Shape::state_len`](super::Shape::state_len)
    /// says.
    pub fn step(channels: &Channels<'_>, token: &Token<'_>, state: &mut [f32], out: &mut [f32]) = step_with
}

#[inline(always)]
fn step_with<S: Simd>(
    simd: S,
    channels: &Channels<'_>,
    token: &Token<'_>,
    state: &mut [f32],
    out: &mut [f32],
) {
    match (channels.heads_side_by_side, channels.per_state) {
        (false, false) => bands::<S, false, false>(simd, channels, token, state, out),
        (false, true) => bands::<S, false, true>(simd, channels, token, state, out),
        (true, false) => bands::<S, true, false>(simd, channels, token, state, out),
        (true, true) => bands::<S, true, true>(simd, channels, token, state, out),
    }
}

#[inline(always)]
fn bands<S: Simd, const SIDE: bool, const PER_STATE: bool>(
    simd: S,
    channels: &Channels<'_>,
    token: &Token<'_>,
    state: &mut [f32],
    out: &mut [f32],
) {
    let columns = token.b.len();
    let blocks = out.len().div_ceil(LANES);
    let mut state = state.as_chunks_mut::<LANES>().0[..blocks * columns].chunks_exact_mut(columns);
    let mut block = 0;
    while block + 2 <= blocks {
        rows::<S, 2, SIDE, PER_STATE>(simd, channels, token, &mut state, out, block);
        block += 2;
    }
    if block < blocks {
        rows::<S, 1, SIDE, PER_STATE>(simd, channels, token, &mut state, out, block);
    }
}

/// Sixteen numbers of channels from `at` on, or the one of their head.
#[inline(always)]
fn of<S: Simd, const SIDE: bool>(simd: S, x: &[f32], at: usize) -> S::F {
    if SIDE { load_at(simd, x, at) } else { simd.splat(x[0]) }
}

/// `N` times sixteen channels from block `block` on; `state` gives the next block.
#[inline(always)]
fn rows<'s, S: Simd, const N: usize, const SIDE: bool, const PER_STATE: bool>(
    simd: S,
    channels: &Channels<'_>,
    token: &Token<'_>,
    state: &mut impl Iterator<Item = &'s mut [[f32; LANES]]>,
    out: &mut [f32],
    block: usize,
) {
    let columns = token.b.len();
    let rates = channels.rates;
    let state: [&mut [[f32; LANES]]; N] =
        std::array::from_fn(|_| state.next().expect("a block of the state"));
    let zero = simd.splat(0.0);
    let (mut delta, mut moved, mut decay) = ([zero; N], [zero; N], [zero; N]);
    for n in 0..N {
        let at = (block + n) * LANES;
        delta[n] = step_size::<S, SIDE>(simd, channels, token, at);
        moved[n] = simd.mul(delta[n], load_at(simd, token.x, at));
        if !PER_STATE {
            decay[n] = exp(simd, simd.mul(of::<S, SIDE>(simd, rates, at), delta[n]));
        }
    }
    let rates_of: [&[[f32; LANES]]; N] = std::array::from_fn(|n| match (SIDE, PER_STATE) {
        (true, true) => &rates.as_chunks().0[(block + n) * columns..][..columns],
        _ => &[],
    });
    let mut sums = [[zero; N]; 2];
    for pair in (0..columns).step_by(2) {
        for (chain, sums) in sums.iter_mut().enumerate() {
            let column = pair + chain;
            if column == columns {
                break;
            }
            let (b, c) = (simd.splat(token.b[column]), simd.splat(token.c[column]));
            for n in 0..N {
                if PER_STATE {
                    let rate = if SIDE { simd.load(&rates_of[n][column]) } else { simd.splat(rates[column]) };
                    decay[n] = exp(simd, simd.mul(rate, delta[n]));
                }
                let cell = &mut state[n][column];
                let s = simd.fma(simd.load(cell), decay[n], simd.mul(moved[n], b));
                simd.store(s, cell);
                sums[n] = simd.fma(s, c, sums[n]);
            }
        }
    }
    for (n, (even, odd)) in sums[0].iter().zip(&sums[1]).enumerate() {
        let at = (block + n) * LANES;
        let sum = simd.add(*even, *odd);
        let d = of::<S, SIDE>(simd, channels.d, at);
        store_at(simd, simd.fma(d, load_at(simd, token.x, at), sum), out, at);
    }
}

/// δ of sixteen channels.
#[inline(always)]
fn step_size<S: Simd, const SIDE: bool>(
    simd: S,
    channels: &Channels<'_>,
    token: &Token<'_>,
    at: usize,
) -> S::F {
    let mut dt = of::<S, SIDE>(simd, token.dt, at);
    if let Some(bias) = channels.dt_bias {
        dt = simd.add(dt, of::<S, SIDE>(simd, bias, at));
    }
    let (least, most) = channels.dt_limit;
    // NaN stays in the second operand.
    simd.min(simd.splat(most), simd.max(simd.splat(least), softplus(simd, dt)))
}
