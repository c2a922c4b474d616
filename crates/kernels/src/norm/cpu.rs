//! `norm` over sixteen lanes.

use amoeba_plan::NormKind;

use super::Norm;
use crate::simd::{LANES, Simd, dispatch, load_at, padded, sum, update};

dispatch! {
    /// Normalises one chunk in place.
    pub fn norm(norm: &Norm<'_>, x: &mut [f32]) = norm_with
}

#[inline(always)]
fn norm_with<S: Simd>(simd: S, norm: &Norm<'_>, x: &mut [f32]) {
    let n = x.len() as f32;
    let mean = match norm.kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => {
            reduce(
                simd,
                x,
                0.0,
                #[inline(always)]
                |_, x| x,
            ) / n
        }
    };
    let square = reduce(
        simd,
        x,
        mean,
        #[inline(always)]
        |simd, x| simd.mul(x, x),
    ) / n;
    let factor = simd.splat(1.0 / (square + norm.eps).sqrt());
    let (centre, scale) = (simd.splat(mean), simd.splat(norm.scale));
    update(
        simd,
        x,
        #[inline(always)]
        |x, at| {
            let mut y = simd.mul(simd.sub(x, centre), factor);
            if let Some(weight) = norm.weight {
                y = simd.mul(y, load_at(simd, weight, at));
            }
            if let Some(bias) = norm.bias {
                y = simd.add(y, load_at(simd, bias, at));
            }
            simd.mul(y, scale)
        },
    );
}

/// Sum of `f(x - mean)` over all elements, in a fixed order.
#[inline(always)]
fn reduce<S: Simd>(simd: S, x: &[f32], mean: f32, f: impl Fn(S, S::F) -> S::F) -> f32 {
    let centre = simd.splat(mean);
    let mut chunks = x.chunks_exact(LANES);
    let mut acc = simd.splat(0.0);
    let mut at = 0;
    for _ in chunks.by_ref() {
        acc = simd.add(acc, f(simd, simd.sub(load_at(simd, x, at), centre)));
        at += LANES;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        // Padding with the mean adds nothing to either sum but the plain one, where the mean is zero.
        let mut tail = [mean; LANES];
        tail[..rest.len()].copy_from_slice(&padded(rest)[..rest.len()]);
        acc = simd.add(acc, f(simd, simd.sub(simd.load(&tail), centre)));
    }
    sum(simd, acc)
}
