//! `activate`: the elementwise middle of an MLP or expert, `out = act(gate, up)`.
//!
//! Contract: `gate`, `up`, `out` of equal length; ungated activations ignore `gate`. Tolerance against the
//! f64 reference: 1e-6 relative to `|gate·up| + |up|`, from the error of [`crate::simd::exp`].

pub(crate) mod cuda;
pub mod reference;

use amoeba_plan::Activation;

use crate::simd::{Simd, dispatch, load_at, sigmoid, tanh, update};

dispatch! {
    /// `up ← act(gate, up)`; `gate` may be empty for ungated activations.
    pub fn activate(activation: Activation, gate: &[f32], up: &mut [f32]) = activate_with
}

#[inline(always)]
fn activate_with<S: Simd>(simd: S, activation: Activation, gate: &[f32], up: &mut [f32]) {
    let splat = |x| simd.splat(x);
    match activation {
        Activation::SwiGlu => update(
            simd,
            up,
            #[inline(always)]
            |u, at| simd.mul(silu(simd, load_at(simd, gate, at)), u),
        ),
        Activation::GeGlu => update(
            simd,
            up,
            #[inline(always)]
            |u, at| simd.mul(gelu(simd, load_at(simd, gate, at)), u),
        ),
        Activation::ClampedSwiGlu { limit, alpha } => update(
            simd,
            up,
            #[inline(always)]
            |u, at| {
                // Bounds first: min and max keep a NaN in their second operand.
                let g = simd.min(splat(limit), load_at(simd, gate, at));
                let u = simd.max(splat(-limit), simd.min(splat(limit), u));
                let s = sigmoid(simd, simd.mul(splat(alpha), g));
                simd.mul(simd.mul(simd.add(u, splat(1.0)), g), s)
            },
        ),
        Activation::LimitedSwiGlu { limit } => update(
            simd,
            up,
            #[inline(always)]
            |u, at| {
                let g = simd.min(splat(limit), silu(simd, load_at(simd, gate, at)));
                simd.mul(g, simd.max(splat(-limit), simd.min(splat(limit), u)))
            },
        ),
        Activation::Sigmoid => update(
            simd,
            up,
            #[inline(always)]
            |u, at| simd.mul(sigmoid(simd, load_at(simd, gate, at)), u),
        ),
        Activation::Product => update(
            simd,
            up,
            #[inline(always)]
            |u, at| simd.mul(load_at(simd, gate, at), u),
        ),
        Activation::Relu2 | Activation::Gelu | Activation::Silu => ungated(simd, activation, up),
    }
}

#[inline(always)]
fn ungated<S: Simd>(simd: S, activation: Activation, up: &mut [f32]) {
    match activation {
        Activation::Relu2 => update(
            simd,
            up,
            #[inline(always)]
            |u, _| {
                let positive = simd.max(simd.splat(0.0), u);
                simd.mul(positive, positive)
            },
        ),
        Activation::Gelu => update(
            simd,
            up,
            #[inline(always)]
            |u, _| gelu(simd, u),
        ),
        _ => update(
            simd,
            up,
            #[inline(always)]
            |u, _| silu(simd, u),
        ),
    }
}

#[inline(always)]
fn silu<S: Simd>(simd: S, x: S::F) -> S::F {
    simd.mul(x, sigmoid(simd, x))
}

#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::F) -> S::F {
    let cube = simd.mul(simd.mul(x, x), x);
    let inner = simd.mul(simd.splat(0.797_884_6), simd.fma(simd.splat(0.044_715), cube, x));
    let half = simd.mul(simd.splat(0.5), x);
    simd.mul(half, simd.add(simd.splat(1.0), tanh(simd, inner)))
}

#[cfg(test)]
mod cases {
    use super::*;
    use crate::simd::Isa;
    use crate::testing::{ACTIVATIONS, Rng};

    #[test]
    fn activations_follow_the_reference_on_every_instruction_set() {
        let mut rng = Rng(7);
        for activation in ACTIVATIONS {
            let gate: Vec<f32> = rng.vector(333).iter().map(|x| x * 12.0).collect();
            let up: Vec<f32> = rng.vector(333).iter().map(|x| x * 12.0).collect();
            for isa in Isa::available() {
                let mut y = up.clone();
                activate(isa, activation, &gate, &mut y);
                for i in 0..333 {
                    let truth = reference::activate(activation, gate[i], up[i]);
                    let allowed = 1e-6 * (1.0 + f64::from(gate[i].abs() * up[i].abs() + up[i] * up[i]));
                    let error = (f64::from(y[i]) - truth).abs();
                    assert!(error <= allowed, "{activation:?} on {isa}: {} vs {truth}", y[i]);
                }
            }
        }
    }

    #[test]
    fn nan_passes_through() {
        for activation in ACTIVATIONS {
            let (gate, up) = if activation.gated() { (f32::NAN, 1.0) } else { (1.0, f32::NAN) };
            let mut y = vec![up; 16];
            activate(Isa::best(), activation, &[gate; 16], &mut y);
            assert!(y.iter().all(|y| y.is_nan()), "{activation:?}");
        }
    }
}
