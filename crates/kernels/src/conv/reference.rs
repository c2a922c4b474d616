//! Scalar reference of `conv` in f64.

use amoeba_plan::ConvOp;

use crate::reference::Row;

/// Runs the op; `kept` are the last inputs of the row's sequence.
pub fn run(op: &ConvOp, row: &mut Row<'_>, kept: &mut [f32]) {
    let (weights, bias) = (&row.vectors[op.weight.0], row.vector(op.bias));
    let mut out = vec![0.0; op.channels];
    step(weights, bias, op.silu, kept, &row.buffer(op.x)[..op.channels], &mut out);
    *row.buffer_mut(op.out) = out;
}

/// One position: weights `[channels, taps + 1]`, `kept [taps, channels]` with the oldest input first, x and
/// out `[channels]`.
pub fn step(weights: &[f32], bias: Option<&[f32]>, silu: bool, kept: &mut [f32], x: &[f32], out: &mut [f32]) {
    let (channels, taps) = (x.len(), kept.len() / x.len());
    for c in 0..channels {
        let input = |j: usize| if j < taps { kept[j * channels + c] } else { x[c] };
        let terms =
            (0..=taps).map(|j| f64::from(weights[c * (taps + 1) + j]) * f64::from(input(j))).sum::<f64>();
        let sum = terms + bias.map_or(0.0, |bias| f64::from(bias[c]));
        out[c] = if silu { sum / (1.0 + (-sum).exp()) } else { sum } as f32;
    }
    if taps > 0 {
        kept.copy_within(channels.., 0);
        kept[(taps - 1) * channels..].copy_from_slice(x);
    }
}
