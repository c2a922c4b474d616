//! `activate`: the elementwise middle of an MLP or expert, `out = act(gate, up)`.
//!
//! Contract: `gate`, `up`, `out` of equal length; ungated activations ignore `gate`. Tolerance against the f64
//! reference: 1e-6 relative to `|gate·up| + |up|`, from the error of [`crate::simd::exp`].

use amoeba_plan::Activation;

use crate::simd::{Simd, dispatch, load_at, sigmoid, tanh, update};

/// Scalar reference in f64.
pub fn reference(activation: Activation, gate: f32, up: f32) -> f64 {
    let (g, u) = (f64::from(gate), f64::from(up));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::SwiGlu => g * sigmoid(g) * u,
        Activation::GeGlu => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044_715 * g * g * g);
            0.5 * g * (1.0 + inner.tanh()) * u
        }
        Activation::ClampedSwiGlu { limit, alpha } => {
            let (limit, alpha) = (f64::from(limit), f64::from(alpha));
            let (g, u) = (g.min(limit), u.clamp(-limit, limit));
            (u + 1.0) * g * sigmoid(alpha * g)
        }
        Activation::Relu2 => u.max(0.0).powi(2),
        other => unreachable!("{other:?}"),
    }
}

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
            |u, at| {
                let g = load_at(simd, gate, at);
                simd.mul(simd.mul(g, sigmoid(simd, g)), u)
            },
        ),
        Activation::GeGlu => update(
            simd,
            up,
            #[inline(always)]
            |u, at| {
                let g = load_at(simd, gate, at);
                let cube = simd.mul(simd.mul(g, g), g);
                let inner = simd.mul(splat(0.797_884_6), simd.fma(splat(0.044_715), cube, g));
                let half = simd.mul(splat(0.5), g);
                simd.mul(simd.mul(half, simd.add(splat(1.0), tanh(simd, inner))), u)
            },
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
        Activation::Relu2 => update(
            simd,
            up,
            #[inline(always)]
            |u, _| {
                let positive = simd.max(splat(0.0), u);
                simd.mul(positive, positive)
            },
        ),
        other => unreachable!("{other:?}"),
    }
}

#[cfg(test)]
mod cases {
    use super::*;
    use crate::simd::Isa;
    use crate::testing::Rng;

    #[test]
    fn activations_follow_the_reference_on_every_instruction_set() {
        let mut rng = Rng(7);
        let clamped = Activation::ClampedSwiGlu { limit: 7.0, alpha: 1.702 };
        for activation in [Activation::SwiGlu, Activation::GeGlu, clamped, Activation::Relu2] {
            let gate: Vec<f32> = rng.vector(333).iter().map(|x| x * 12.0).collect();
            let up: Vec<f32> = rng.vector(333).iter().map(|x| x * 12.0).collect();
            for isa in Isa::available() {
                let mut y = up.clone();
                activate(isa, activation, &gate, &mut y);
                for i in 0..333 {
                    let truth = reference(activation, gate[i], up[i]);
                    let allowed = 1e-6 * (1.0 + f64::from(gate[i].abs() * up[i].abs() + up[i] * up[i]));
                    let error = (f64::from(y[i]) - truth).abs();
                    assert!(error <= allowed, "{activation:?} on {isa}: {} vs {truth}", y[i]);
                }
            }
        }
    }

    #[test]
    fn nan_passes_through() {
        for activation in [Activation::SwiGlu, Activation::GeGlu] {
            let mut y = vec![1.0; 16];
            activate(Isa::best(), activation, &[f32::NAN; 16], &mut y);
            assert!(y.iter().all(|y| y.is_nan()), "{activation:?}");
        }
    }
}
