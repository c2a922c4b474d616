//! Ops as tests make them by hand: what is left out is off.

use amoeba_plan::{
    AttentionOp, BufferId, CacheId, DeltaNetOp, NormKind, NormOp, Op, RouterRule, Score, SsmOp, WeightId,
};

/// RMS norm of `chunks × dim`.
pub fn rms_norm(x: BufferId, out: BufferId, weight: Option<WeightId>, [chunks, dim]: [usize; 2]) -> NormOp {
    let (kind, bias, per_chunk, eps, scale) = (NormKind::Rms, None, false, 1e-6, 1.0);
    NormOp { kind, weight, bias, per_chunk, eps, scale, chunks, dim, x, out }
}

/// Attention to everything cached.
pub fn attention(
    cache: CacheId,
    q: BufferId,
    out: BufferId,
    [heads, kv_heads, head_dim, v_dim]: [usize; 4],
    scale: f32,
) -> AttentionOp {
    let (window, sinks, softcap) = (None, None, None);
    AttentionOp { cache, q, out, heads, kv_heads, head_dim, v_dim, scale, window, sinks, softcap }
}

/// A delta rule of `q, k, v, decay, beta` with `a_log, dt_bias`.
pub fn delta_net(
    cache: CacheId,
    [q, k, v, decay, beta]: [BufferId; 5],
    [a_log, dt_bias]: [WeightId; 2],
    per_channel: bool,
    [k_heads, v_heads, k_dim, v_dim]: [usize; 4],
    out: BufferId,
) -> Op {
    Op::DeltaNet(DeltaNetOp {
        cache,
        q,
        k,
        v,
        decay,
        beta,
        a_log,
        dt_bias,
        per_channel,
        k_heads,
        v_heads,
        k_dim,
        v_dim,
        out,
    })
}

/// A state space of `x, b, c, dt` with `a_log, d`; δ is neither biased nor bounded, and a head has one rate.
pub fn ssm(
    cache: CacheId,
    [x, b, c, dt]: [BufferId; 4],
    [a_log, d]: [WeightId; 2],
    [heads, head_dim, groups, state]: [usize; 4],
    out: BufferId,
) -> SsmOp {
    SsmOp {
        cache,
        x,
        b,
        c,
        dt,
        a_log,
        per_state: false,
        d,
        dt_bias: None,
        dt_limit: (0.0, f32::INFINITY),
        heads,
        head_dim,
        groups,
        state,
        out,
    }
}

/// A router of that score with no groups, corrections or factors.
pub fn router_rule(score: Score, top_k: usize) -> RouterRule {
    RouterRule { top_k, score, correction: None, groups: None, normalise: None, scale: 1.0, per_expert: None }
}
