//! `add`, `sigmoid_gate`, `scale_logits`: the elementwise rest. One implementation serves every CPU path.

use crate::simd::{Simd, dispatch, load_at, update};

dispatch! {
    /// `x ← x + scale · y`.
    pub fn add(x: &mut [f32], y: &[f32], scale: f32) = add_with
}

#[inline(always)]
fn add_with<S: Simd>(simd: S, x: &mut [f32], y: &[f32], scale: f32) {
    let scale = simd.splat(scale);
    update(
        simd,
        x,
        #[inline(always)]
        |x, at| simd.fma(scale, load_at(simd, y, at), x),
    );
}

dispatch! {
    /// `x ← factor · x`.
    pub fn scale(x: &mut [f32], factor: f32) = scale_with
}

#[inline(always)]
fn scale_with<S: Simd>(simd: S, x: &mut [f32], factor: f32) {
    let factor = simd.splat(factor);
    update(
        simd,
        x,
        #[inline(always)]
        |x, _| simd.mul(factor, x),
    );
}

/// `sigmoid(gate)`, the factor of a gated shared expert.
pub fn sigmoid_of(gate: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(gate)).exp())) as f32
}

/// `x ← cap·tanh(scale·x/cap)`, or `scale·x` without a cap.
pub fn scale_logits(x: &mut [f32], scale: f32, softcap: Option<f32>) {
    for x in x {
        *x *= scale;
        if let Some(cap) = softcap {
            *x = cap * (*x / cap).tanh();
        }
    }
}
