//! Scalar reference of `norm` in f64.

use amoeba_plan::{NormKind, NormOp};

use super::Norm;
use crate::reference::Row;

/// Runs the op.
pub fn run(op: &NormOp, row: &mut Row<'_>) {
    let all = Norm::of(op, |id| row.vector(id));
    let mut out = row.buffer(op.x).to_vec();
    if op.x != op.out {
        out.truncate(op.chunks * op.dim);
    }
    for (i, chunk) in out.chunks_exact_mut(op.dim).take(op.chunks).enumerate() {
        norm(&if op.per_chunk { all.of_chunk(i, op.dim) } else { all }, chunk);
    }
    *row.buffer_mut(op.out) = out;
}

/// Normalises one chunk in place.
pub fn norm(norm: &Norm<'_>, x: &mut [f32]) {
    let n = x.len() as f64;
    let mean = match norm.kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().map(|&x| f64::from(x)).sum::<f64>() / n,
    };
    let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let factor = 1.0 / (square + f64::from(norm.eps)).sqrt();
    for (i, x) in x.iter_mut().enumerate() {
        let weight = norm.weight.map_or(1.0, |weight| f64::from(weight[i]));
        let bias = norm.bias.map_or(0.0, |bias| f64::from(bias[i]));
        *x = (((f64::from(*x) - mean) * factor * weight + bias) * f64::from(norm.scale)) as f32;
    }
}
