//! Scalar reference of `attention` in f64.

use amoeba_plan::{AttentionOp, KvAppendOp};

use super::{Shape, first_visible};
use crate::reference::Row;

/// Runs `kv_append`: the row's keys `[kv_heads · k_dim]` and values join those of its sequence.
pub fn append(op: &KvAppendOp, row: &Row<'_>, kv: &mut [Vec<f32>; 2]) {
    let rows = [(op.k, op.kv_heads * op.k_dim), (op.v, op.kv_heads * op.v_dim)];
    for (cached, (buffer, width)) in kv.iter_mut().zip(rows) {
        cached.resize(row.position * width, 0.0);
        cached.extend_from_slice(&row.buffer(buffer)[..width]);
    }
}

/// Runs `attention` over the keys and values of the row's sequence.
pub fn run(op: &AttentionOp, row: &mut Row<'_>, [keys, values]: &[Vec<f32>; 2]) {
    let visible = first_visible(row.position, op.window)..row.position + 1;
    // Keys or values of one head at the visible positions, side by side.
    let gather = |all: &[f32], head: usize, dim: usize| -> Vec<f32> {
        visible.clone().flat_map(|p| &all[(p * op.kv_heads + head) * dim..][..dim]).copied().collect()
    };
    let sinks = row.vector(op.sinks);
    let mut out = vec![0.0; op.heads * op.v_dim];
    for (head, out) in out.chunks_exact_mut(op.v_dim).enumerate() {
        let kv_head = head / (op.heads / op.kv_heads);
        let (keys, values) = (gather(keys, kv_head, op.head_dim), gather(values, kv_head, op.v_dim));
        let q = &row.buffer(op.q)[head * op.head_dim..][..op.head_dim];
        attend(&Shape::of(op), q, &keys, &values, sinks.map(|sinks| sinks[head]), out);
    }
    *row.buffer_mut(op.out) = out;
}

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
