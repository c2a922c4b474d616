//! The elementwise ops: `add`, `scale`, `head_gate`, `temperature`, and `copy`, which only moves memory.
//!
//! Contract: everything works in place. Factors are computed in f64 and rounded once; a soft cap is within
//! 1e-6 of the cap of the f64 reference, all else within an ulp.

use amoeba_plan::GateKind;

use crate::simd::{Simd, dispatch, load_at, tanh, update};

pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod cases;

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
    /// `x ← cap·tanh(factor·x/cap)`, or `factor·x` without a cap.
    pub fn scale(x: &mut [f32], factor: f32, softcap: Option<f32>) = scale_with
}

#[inline(always)]
fn scale_with<S: Simd>(simd: S, x: &mut [f32], factor: f32, softcap: Option<f32>) {
    let factor = simd.splat(factor);
    match softcap {
        None => update(
            simd,
            x,
            #[inline(always)]
            |x, _| simd.mul(factor, x),
        ),
        Some(cap) => {
            let (cap, inverse) = (simd.splat(cap), simd.splat(1.0 / cap));
            update(
                simd,
                x,
                #[inline(always)]
                |x, _| simd.mul(cap, tanh(simd, simd.mul(simd.mul(factor, x), inverse))),
            );
        }
    }
}

/// The factor of [`scale`]: a constant and a learned one.
pub fn scale_of(scale: f32, by: Option<&[f32]>) -> f32 {
    (f64::from(scale) * by.map_or(1.0, |by| f64::from(by[0]))) as f32
}

/// What a gate multiplies by.
pub fn gate_of(kind: GateKind, gate: f32) -> f32 {
    let x = f64::from(gate);
    match kind {
        GateKind::Plain => gate,
        GateKind::Sigmoid => (1.0 / (1.0 + (-x).exp())) as f32,
        // The larger part apart, so that nothing overflows; NaN stays NaN.
        GateKind::Softplus => (if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }) as f32,
    }
}

/// `1 + scale · ln(1 + ⌊(position + shift) / period⌋)`: what queries far into a context are multiplied by.
pub fn temperature_of(position: usize, scale: f32, period: f32, shift: f32) -> f32 {
    let periods = ((position as f64 + f64::from(shift)) / f64::from(period)).floor();
    (1.0 + f64::from(scale) * periods.ln_1p()) as f32
}
