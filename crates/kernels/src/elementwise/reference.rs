//! Scalar reference of the elementwise ops in f64.

use amoeba_plan::{AddOp, CopyOp, HeadGateOp, ScaleOp, TemperatureOp};

use super::{gate_of, scale_of, temperature_of};
use crate::reference::Row;

/// Runs `add`.
pub fn run_add(op: &AddOp, row: &mut Row<'_>) {
    let addend = row.buffer(op.y)[..op.width].to_vec();
    add(row.buffer_mut(op.x), &addend, op.scale);
}

/// Runs `scale`.
pub fn run_scale(op: &ScaleOp, row: &mut Row<'_>) {
    let factor = scale_of(op.scale, row.vector(op.by));
    scale(&mut row.buffer_mut(op.x)[..op.width], factor, op.softcap);
}

/// Runs `head_gate`.
pub fn run_head_gate(op: &HeadGateOp, row: &mut Row<'_>) {
    for head in 0..op.heads {
        let factor = gate_of(op.kind, row.buffer(op.gate)[head]);
        scale(&mut row.buffer_mut(op.x)[head * op.width..][..op.width], factor, None);
    }
}

/// Runs `temperature`.
pub fn run_temperature(op: &TemperatureOp, row: &mut Row<'_>) {
    let factor = temperature_of(row.position, op.scale, op.period, op.shift);
    scale(&mut row.buffer_mut(op.x)[..op.width], factor, None);
}

/// Runs `copy`; the rest of the row stays as it is.
pub fn run_copy(op: &CopyOp, row: &mut Row<'_>) {
    let CopyOp { x, out, heads, len } = *op;
    let from = row.buffer(x.buffer).to_vec();
    let to = row.buffer_mut(out.buffer);
    to.resize(to.len().max(out.first + (heads - 1) * out.stride + len), 0.0);
    for head in 0..heads {
        to[out.first + head * out.stride..][..len].copy_from_slice(&from[x.first + head * x.stride..][..len]);
    }
}

/// `x ← x + scale · y`.
pub fn add(x: &mut [f32], y: &[f32], scale: f32) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x = (f64::from(*x) + f64::from(scale) * f64::from(*y)) as f32);
}

/// `x ← cap·tanh(factor·x/cap)`, or `factor·x` without a cap.
pub fn scale(x: &mut [f32], factor: f32, softcap: Option<f32>) {
    for x in x {
        let y = f64::from(factor) * f64::from(*x);
        *x = softcap.map_or(y, |cap| f64::from(cap) * (y / f64::from(cap)).tanh()) as f32;
    }
}
