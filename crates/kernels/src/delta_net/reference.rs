//! Scalar reference of `delta_net` in f64.

use super::Token;

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
