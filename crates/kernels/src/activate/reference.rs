//! Scalar reference of `activate` in f64.

use amoeba_plan::{ActivateOp, Activation};

use crate::reference::Row;

/// Runs the op.
pub fn run(op: &ActivateOp, row: &mut Row<'_>) {
    let gate = |i: usize| op.gate.map_or(0.0, |gate| row.buffer(gate)[i]);
    let out = (0..op.width).map(|i| activate(op.activation, gate(i), row.buffer(op.up)[i]) as f32);
    *row.buffer_mut(op.out) = out.collect();
}

/// One element; ungated activations ignore `gate`.
pub fn activate(activation: Activation, gate: f32, up: f32) -> f64 {
    let (g, u) = (f64::from(gate), f64::from(up));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let gelu = |x: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
        0.5 * x * (1.0 + inner.tanh())
    };
    match activation {
        Activation::SwiGlu => g * sigmoid(g) * u,
        Activation::GeGlu => gelu(g) * u,
        Activation::ClampedSwiGlu { limit, alpha } => {
            let (limit, alpha) = (f64::from(limit), f64::from(alpha));
            let (g, u) = (g.min(limit), u.clamp(-limit, limit));
            (u + 1.0) * g * sigmoid(alpha * g)
        }
        Activation::LimitedSwiGlu { limit } => {
            let limit = f64::from(limit);
            (g * sigmoid(g)).min(limit) * u.clamp(-limit, limit)
        }
        Activation::Sigmoid => sigmoid(g) * u,
        Activation::Product => g * u,
        Activation::Relu2 => u.max(0.0).powi(2),
        Activation::Gelu => gelu(u),
        Activation::Silu => u * sigmoid(u),
    }
}
