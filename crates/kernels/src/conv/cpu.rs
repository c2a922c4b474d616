//! `conv` over sixteen channels at a time.

use super::Filter;
use crate::simd::{LANES, Simd, dispatch, load_at, sigmoid, store_at};

dispatch! {
    /// One position of some channels: x and out hold a number per channel, `state` is laid out as
    /// [`state_len`](super::state_len) says, `oldest` is the position modulo `taps`.
    pub fn step(filter: &Filter<'_>, oldest: usize, x: &[f32], state: &mut [f32], out: &mut [f32]) = step_with
}

#[inline(always)]
fn step_with<S: Simd>(
    simd: S,
    filter: &Filter<'_>,
    oldest: usize,
    x: &[f32],
    state: &mut [f32],
    out: &mut [f32],
) {
    let taps = filter.taps;
    let weights = filter.weights.as_chunks::<LANES>().0;
    let state = state.as_chunks_mut::<LANES>().0;
    for block in 0..x.len().div_ceil(LANES) {
        let at = block * LANES;
        let weights = &weights[block * (taps + 1)..][..taps + 1];
        let kept = &mut state[block * taps..][..taps];
        let mut sum = match filter.bias {
            Some(bias) => load_at(simd, bias, at),
            None => simd.splat(0.0),
        };
        // The ring from its oldest input on.
        for j in oldest..taps {
            sum = simd.fma(simd.load(&weights[j - oldest]), simd.load(&kept[j]), sum);
        }
        for j in 0..oldest {
            sum = simd.fma(simd.load(&weights[taps - oldest + j]), simd.load(&kept[j]), sum);
        }
        let x = load_at(simd, x, at);
        sum = simd.fma(simd.load(&weights[taps]), x, sum);
        if filter.silu {
            sum = simd.mul(sum, sigmoid(simd, sum));
        }
        if taps > 0 {
            simd.store(x, &mut kept[oldest]);
        }
        store_at(simd, sum, out, at);
    }
}
