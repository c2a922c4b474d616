//! Scalar reference of `attention` in f64.

use super::Shape;

/// One query head: `keys [n, head_dim]`, `values [n, v_dim]` are the visible ones; `out [v_dim]`.
pub fn attend(shape: &Shape, q: &[f32], keys: &[f32], values: &[f32], sink: Option<f32>, out: &mut [f32]) {
    let scores: Vec<f64> = keys
        .chunks_exact(shape.head_dim)
        .map(|key| {
            let dot: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let score = dot * f64::from(shape.scale);
            shape.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        })
        .collect();
    let max = scores.iter().copied().chain(sink.map(f64::from)).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (f64::from(sink) - max).exp());
    for (d, out) in out.iter_mut().enumerate() {
        let weighted = weights.iter().zip(values.chunks_exact(shape.v_dim)).map(|(w, v)| w * f64::from(v[d]));
        *out = (weighted.sum::<f64>() / sum) as f32;
    }
}
