//! Scalar reference of `delta_net` in f64.

use amoeba_plan::DeltaNetOp;

use super::Token;
use crate::reference::Row;

/// Runs the op; `state [v_heads, v_dim, k_dim]` is that of the row's sequence.
pub fn run(op: &DeltaNetOp, row: &mut Row<'_>, state: &mut [f64]) {
    let (k_dim, v_dim) = (op.k_dim, op.v_dim);
    let decays = if op.per_channel { k_dim } else { 1 };
    let mut out = vec![0.0; op.v_heads * v_dim];
    let heads = state.chunks_exact_mut(v_dim * k_dim).zip(out.chunks_exact_mut(v_dim));
    for (h, (state, out)) in heads.enumerate() {
        let key_head = h / (op.v_heads / op.k_heads);
        let token = Token {
            q: &row.buffer(op.q)[key_head * k_dim..][..k_dim],
            k: &row.buffer(op.k)[key_head * k_dim..][..k_dim],
            v: &row.buffer(op.v)[h * v_dim..][..v_dim],
            decay: &row.buffer(op.decay)[h * decays..][..decays],
            beta: row.buffer(op.beta)[h],
        };
        let dt_bias = &row.vectors[op.dt_bias.0][h * decays..][..decays];
        step(row.vectors[op.a_log.0][h], dt_bias, &token, state, out);
    }
    *row.buffer_mut(op.out) = out;
}

/// One position of a value head: `state [v_dim, k_dim]`, `out [v_dim]`; `dt_bias` is as long as
/// `token.decay`.
pub fn step(a_log: f32, dt_bias: &[f32], token: &Token<'_>, state: &mut [f64], out: &mut [f32]) {
    let k_dim = token.k.len();
    let decay = |j: usize| {
        let at = if token.decay.len() == 1 { 0 } else { j };
        let softplus = (f64::from(token.decay[at]) + f64::from(dt_bias[at])).exp().ln_1p();
        (-f64::from(a_log).exp() * softplus).exp()
    };
    let decay: Vec<f64> = (0..k_dim).map(decay).collect();
    let beta = 1.0 / (1.0 + (-f64::from(token.beta)).exp());
    let dot = |row: &[f64], x: &[f32]| row.iter().zip(x).map(|(s, &x)| s * f64::from(x)).sum::<f64>();
    for (row, (out, &v)) in state.chunks_exact_mut(k_dim).zip(out.iter_mut().zip(token.v)) {
        row.iter_mut().zip(&decay).for_each(|(s, g)| *s *= g);
        let delta = beta * (f64::from(v) - dot(row, token.k));
        row.iter_mut().zip(token.k).for_each(|(s, &k)| *s += delta * f64::from(k));
        *out = dot(row, token.q) as f32;
    }
}
