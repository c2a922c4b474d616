//! What is kept per sequence, and the ops that carry a state.

use amoeba_kernels::{conv, delta_net, ssm};
use amoeba_plan::{CacheId, CacheKind, ConvOp, DeltaNetOp, Plan, SsmOp};

use super::Interpreter;
use crate::Row;

/// One cache of one sequence.
#[derive(Clone)]
pub enum Kept {
    /// Keys `[position, heads · dim]`, then values.
    Kv([Vec<f32>; 2]),
    /// The last inputs `[taps, channels]`, the oldest first.
    Inputs(Vec<f32>),
    /// The matrices of all heads.
    State(Vec<f64>),
}

impl Kept {
    /// Nothing yet.
    pub fn new(kind: CacheKind) -> Kept {
        let len = kind.elements_per_sequence();
        match kind {
            CacheKind::Kv { .. } => Kept::Kv([Vec::new(), Vec::new()]),
            CacheKind::Conv { .. } => Kept::Inputs(vec![0.0; len]),
            CacheKind::State { .. } => Kept::State(vec![0.0; len]),
        }
    }

    /// Keys and values.
    pub fn kv(&self) -> &[Vec<f32>; 2] {
        match self {
            Kept::Kv(kv) => kv,
            _ => unreachable!("the cache holds a state; the plan was built wrongly"),
        }
    }

    /// Keys and values, to add to.
    pub fn kv_mut(&mut self) -> &mut [Vec<f32>; 2] {
        match self {
            Kept::Kv(kv) => kv,
            _ => unreachable!("the cache holds a state; the plan was built wrongly"),
        }
    }
}

/// Bytes of all caches of a sequence of `positions` positions.
pub fn bytes(plan: &Plan, positions: usize) -> usize {
    let of = |kind: CacheKind| match kind {
        CacheKind::Kv { .. } => size_of::<f32>() * positions * kind.elements_per_position(),
        CacheKind::Conv { .. } => size_of::<f32>() * kind.elements_per_sequence(),
        CacheKind::State { .. } => size_of::<f64>() * kind.elements_per_sequence(),
    };
    plan.caches.iter().map(|cache| of(cache.kind)).sum()
}

impl Interpreter {
    /// The cache of a row's sequence, taken out, and anew if the sequence begins.
    fn take(&mut self, cache: CacheId, row: &Row) -> Kept {
        let kept = &mut self.caches[row.slot][cache.0];
        let kept = std::mem::replace(kept, Kept::Inputs(Vec::new()));
        if row.position == 0 { Kept::new(self.plan.caches[cache.0].kind) } else { kept }
    }

    pub(super) fn conv(&mut self, op: &ConvOp, rows: &[Row]) {
        let all = rows.iter().enumerate().map(|(i, row)| {
            let mut kept = self.take(op.cache, row);
            let Kept::Inputs(inputs) = &mut kept else { unreachable!("a convolution keeps inputs") };
            let (weights, bias) = (&self.vectors[op.weight.0], self.vector(op.bias));
            let x = &self.buffers.0[op.x.0][i][..op.channels];
            let mut out = vec![0.0; op.channels];
            conv::reference::step(weights, bias, op.silu, inputs, x, &mut out);
            self.caches[row.slot][op.cache.0] = kept;
            out
        });
        let all = all.collect();
        self.buffers.0[op.out.0] = all;
    }

    pub(super) fn delta_net(&mut self, op: &DeltaNetOp, rows: &[Row]) {
        let (k_dim, v_dim) = (op.k_dim, op.v_dim);
        let decays = if op.per_channel { k_dim } else { 1 };
        let all = rows.iter().enumerate().map(|(i, row)| {
            let mut kept = self.take(op.cache, row);
            let Kept::State(state) = &mut kept else { unreachable!("a delta rule keeps a state") };
            let mut out = vec![0.0; op.v_heads * v_dim];
            let heads = state.chunks_exact_mut(v_dim * k_dim).zip(out.chunks_exact_mut(v_dim));
            for (h, (state, out)) in heads.enumerate() {
                let key_head = h / (op.v_heads / op.k_heads);
                let token = delta_net::Token {
                    q: &self.buffers.0[op.q.0][i][key_head * k_dim..][..k_dim],
                    k: &self.buffers.0[op.k.0][i][key_head * k_dim..][..k_dim],
                    v: &self.buffers.0[op.v.0][i][h * v_dim..][..v_dim],
                    decay: &self.buffers.0[op.decay.0][i][h * decays..][..decays],
                    beta: self.buffers.0[op.beta.0][i][h],
                };
                let dt_bias = &self.vectors[op.dt_bias.0][h * decays..][..decays];
                delta_net::reference::step(self.vectors[op.a_log.0][h], dt_bias, &token, state, out);
            }
            self.caches[row.slot][op.cache.0] = kept;
            out
        });
        let all = all.collect();
        self.buffers.0[op.out.0] = all;
    }

    pub(super) fn ssm(&mut self, op: &SsmOp, rows: &[Row]) {
        let (dim, columns) = (op.head_dim, op.state);
        let rates = if op.per_state { columns } else { 1 };
        let all = rows.iter().enumerate().map(|(i, row)| {
            let mut kept = self.take(op.cache, row);
            let Kept::State(state) = &mut kept else { unreachable!("a state space keeps a state") };
            let mut out = vec![0.0; op.heads * dim];
            let heads = state.chunks_exact_mut(dim * columns).zip(out.chunks_exact_mut(dim));
            for (h, (state, out)) in heads.enumerate() {
                let group = h / (op.heads / op.groups);
                let head = ssm::reference::Head {
                    a_log: &self.vectors[op.a_log.0][h * rates..][..rates],
                    d: self.vectors[op.d.0][h],
                    dt_bias: self.vector(op.dt_bias).map_or(0.0, |bias| bias[h]),
                    dt_limit: op.dt_limit,
                };
                let token = ssm::Token {
                    x: &self.buffers.0[op.x.0][i][h * dim..][..dim],
                    b: &self.buffers.0[op.b.0][i][group * columns..][..columns],
                    c: &self.buffers.0[op.c.0][i][group * columns..][..columns],
                    dt: &self.buffers.0[op.dt.0][i][h..=h],
                };
                ssm::reference::step(&head, &token, state, out);
            }
            self.caches[row.slot][op.cache.0] = kept;
            out
        });
        let all = all.collect();
        self.buffers.0[op.out.0] = all;
    }
}
