//! Operations that carry a state from position to position.

use super::Operation;
use crate::io::Io;
use crate::program::{BufferId, CacheId, WeightId};

/// Depthwise causal convolution over the positions of a sequence,
/// `y_c(t) = act(b_c + Σ_j w_c,j · x_c(t - taps + j))` with zeros before the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvOp {
    /// The inputs before this step.
    pub cache: CacheId,
    /// `[channels, taps + 1]`, the oldest input's first; as a vector.
    pub weight: WeightId,
    /// `[channels]`.
    pub bias: Option<WeightId>,
    /// Channels.
    pub channels: usize,
    /// Kernel width less one.
    pub taps: usize,
    /// Whether `silu` follows.
    pub silu: bool,
    /// `[channels]`.
    pub x: BufferId,
    /// `[channels]`; not `x`.
    pub out: BufferId,
}

impl Operation for ConvOp {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn io(&self) -> Io {
        let io = Io::default().read(self.x, self.channels).write(self.out, self.channels);
        let io = io.read_cache(self.cache).write_cache(self.cache);
        io.vector(Some(self.weight), self.channels * (self.taps + 1)).vector(self.bias, self.channels)
    }

    fn details(&self) -> String {
        format!("{} × {}{}", self.channels, self.taps + 1, if self.silu { ", silu" } else { "" })
    }

    fn is_row_work(&self) -> bool {
        false
    }
}

/// Gated delta rule (Yang et al. 2024): per value head h with state `S [v_dim, k_dim]`, key head
/// `h / (v_heads/k_heads)`, `g = exp(-exp(a_log) · softplus(decay + dt_bias))`, `β = sigmoid(beta)`:
/// `S ← S · g; S ← S + β (v - S k) ⊗ k; out = S q`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaNetOp {
    /// `S` of every value head, [`CacheKind::State`](crate::CacheKind::State).
    pub cache: CacheId,
    /// `[k_heads · k_dim]`, normalised.
    pub q: BufferId,
    /// `[k_heads · k_dim]`, normalised.
    pub k: BufferId,
    /// `[v_heads · v_dim]`.
    pub v: BufferId,
    /// `[v_heads]`, or `[v_heads · k_dim]` if `per_channel`.
    pub decay: BufferId,
    /// `[v_heads]`.
    pub beta: BufferId,
    /// `[v_heads]`.
    pub a_log: WeightId,
    /// Like `decay`.
    pub dt_bias: WeightId,
    /// Whether each key channel decays at its own rate (Kimi delta attention).
    pub per_channel: bool,
    /// Key heads.
    pub k_heads: usize,
    /// Value heads, a multiple of `k_heads`.
    pub v_heads: usize,
    /// Width of a key head.
    pub k_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
    /// `[v_heads · v_dim]`.
    pub out: BufferId,
}

impl Operation for DeltaNetOp {
    fn name(&self) -> &'static str {
        "delta_net"
    }

    fn io(&self) -> Io {
        let (keys, values) = (self.k_heads * self.k_dim, self.v_heads * self.v_dim);
        let decays = if self.per_channel { self.v_heads * self.k_dim } else { self.v_heads };
        let io = Io::default().read(self.q, keys).read(self.k, keys).read(self.v, values);
        let io = io.read(self.decay, decays).read(self.beta, self.v_heads).write(self.out, values);
        let io = io.read_cache(self.cache).write_cache(self.cache);
        io.vector(Some(self.a_log), self.v_heads).vector(Some(self.dt_bias), decays)
    }

    fn details(&self) -> String {
        let DeltaNetOp { v_heads, k_heads, v_dim, k_dim, .. } = self;
        format!("{v_heads} heads / {k_heads} key heads, {v_dim} × {k_dim}")
    }

    fn is_row_work(&self) -> bool {
        false
    }
}

/// Selective state space (Gu & Dao 2023; Dao & Gu 2024): per head h with state `S [head_dim, state]`, group
/// `h / (heads/groups)`, `δ = clamp(softplus(dt + dt_bias))`:
/// `S ← S · exp(-exp(a_log) δ) + δ x ⊗ B; out = S C + d x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SsmOp {
    /// `S` of every head, [`CacheKind::State`](crate::CacheKind::State).
    pub cache: CacheId,
    /// `[heads · head_dim]`.
    pub x: BufferId,
    /// `[groups · state]`.
    pub b: BufferId,
    /// `[groups · state]`.
    pub c: BufferId,
    /// `[heads]`.
    pub dt: BufferId,
    /// `[heads]`, or `[heads · state]` if `per_state`.
    pub a_log: WeightId,
    /// Whether each column of the state decays at its own rate (Mamba-1).
    pub per_state: bool,
    /// `[heads]`.
    pub d: WeightId,
    /// `[heads]`.
    pub dt_bias: Option<WeightId>,
    /// Bounds of δ.
    pub dt_limit: (f32, f32),
    /// Heads.
    pub heads: usize,
    /// Width of a head; 1 for Mamba-1.
    pub head_dim: usize,
    /// Groups that share B and C; divides `heads`.
    pub groups: usize,
    /// Columns of the state.
    pub state: usize,
    /// `[heads · head_dim]`; not `x`.
    pub out: BufferId,
}

impl Operation for SsmOp {
    fn name(&self) -> &'static str {
        "ssm"
    }

    fn io(&self) -> Io {
        let (width, bc) = (self.heads * self.head_dim, self.groups * self.state);
        let rates = if self.per_state { self.heads * self.state } else { self.heads };
        let io = Io::default().read(self.x, width).read(self.b, bc).read(self.c, bc);
        let io = io.read(self.dt, self.heads).write(self.out, width);
        let io = io.read_cache(self.cache).write_cache(self.cache).vector(Some(self.a_log), rates);
        io.vector(Some(self.d), self.heads).vector(self.dt_bias, self.heads)
    }

    fn details(&self) -> String {
        let SsmOp { heads, head_dim, state, groups, .. } = self;
        format!("{heads} heads × {head_dim} × {state}, {groups} groups")
    }

    fn is_row_work(&self) -> bool {
        false
    }
}
