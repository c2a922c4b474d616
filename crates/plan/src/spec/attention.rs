//! Attention as data.

use super::{LinearSpec, NormSpec};

/// Where the norm of queries and keys acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNormWidth {
    /// Each head on its own.
    Head,
    /// The whole projection before it is split into heads.
    Full,
}

/// Norms of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct QkNormSpec {
    /// Per head or full width.
    pub width: QkNormWidth,
    /// Norm of the queries.
    pub q: NormSpec,
    /// Norm of the keys.
    pub k: NormSpec,
    /// After the rotation instead of before it.
    pub after_rope: bool,
}

/// Where queries, keys and values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Projections {
    /// A projection each.
    Apart {
        /// `[heads·head_dim, hidden]`; twice that with [`OutputGate::InQuery`].
        q: LinearSpec,
        /// `[kv_heads·head_dim, hidden]`.
        k: LinearSpec,
        /// `[kv_heads·v_dim, hidden]`; without one the values are the keys before norm and rotation.
        v: Option<LinearSpec>,
    },
    /// One projection: rows of the queries, then of the keys, then of the values.
    Fused(LinearSpec),
    /// As `Apart`; keys and values are also kept for the layers that follow, before norms and rotation
    /// (Hunyuan).
    Sharing {
        /// `[heads·head_dim, hidden]`.
        q: LinearSpec,
        /// `[kv_heads·head_dim, hidden]`.
        k: LinearSpec,
        /// `[kv_heads·v_dim, hidden]`.
        v: LinearSpec,
    },
    /// Keys and values are those of the last layer that computed shared ones.
    Borrowed(LinearSpec),
    /// Keys and values are those of an earlier layer, from its cache.
    Shared {
        /// Query projection.
        q: LinearSpec,
        /// The layer.
        layer: usize,
    },
}

/// A gate on what attention gives, before the output projection.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputGate {
    /// `σ` of the second half of each head of the query projection.
    InQuery,
    /// `σ` of a projection of the block's input, elementwise `[heads·v_dim, hidden]`.
    Elementwise(LinearSpec),
    /// A number per head, `[heads, hidden]`.
    PerHead(LinearSpec, GateKind),
}

/// Factor on the queries that grows with the position, `1 + scale · ln(1 + ⌊(position + shift) / period⌋)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TemperatureSpec {
    /// Factor on the logarithm.
    pub scale: f32,
    /// Positions per step.
    pub period: f32,
    /// Added to the position.
    pub shift: f32,
}

/// Grouped-query attention (Ainslie et al. 2023).
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
    /// Queries, keys and values.
    pub projections: Projections,
    /// Output projection `[hidden, heads·v_dim]`.
    pub o: LinearSpec,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNormSpec>,
    /// Norm of each value head.
    pub v_norm: Option<NormSpec>,
    /// Factor on the values.
    pub v_scale: f32,
    /// Rotary embedding; `None` is NoPE.
    pub rope: Option<RopeSpec>,
    /// Factor on the queries by position.
    pub temperature: Option<TemperatureSpec>,
    /// Factor on q·k.
    pub scale: f32,
    /// Which of the keys before it a query sees; all without.
    pub window: Option<Window>,
    /// Tensor name of per-head sink logits.
    pub sinks: Option<String>,
    /// `cap·tanh(s/cap)` on scores.
    pub softcap: Option<f32>,
    /// Gate on the result.
    pub gate: Option<OutputGate>,
}

/// Queries of latent attention.
#[derive(Clone, Debug, PartialEq)]
pub enum LatentQuery {
    /// One projection.
    Direct(LinearSpec),
    /// `b · norm(a · x)`.
    LowRank {
        /// `[rank, hidden]`.
        a: LinearSpec,
        /// Of the `rank` values.
        norm: NormSpec,
        /// `[heads·(nope_dim + rope_dim), rank]`.
        b: LinearSpec,
        /// Width between.
        rank: usize,
    },
}

/// How keys and values come out of the latent.
#[derive(Clone, Debug, PartialEq)]
pub enum LatentForm {
    /// `kv_b [heads·(nope_dim + v_dim), rank]` makes keys and values, which are cached.
    Expanded(LinearSpec),
    /// The latent is cached; queries go into its space and results come back from it.
    Absorbed {
        /// `[heads, rank, nope_dim]`.
        embed_q: String,
        /// `[heads, v_dim, rank]`.
        unembed_out: String,
    },
}

/// Multi-head latent attention (DeepSeek-V2, 2024).
#[derive(Clone, Debug, PartialEq)]
pub struct LatentSpec {
    /// Heads.
    pub heads: usize,
    /// Part of a query or key head without rotation.
    pub nope_dim: usize,
    /// Part of a query or key head that turns; its key is shared by all heads.
    pub rope_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
    /// Width of the latent.
    pub rank: usize,
    /// Queries `[heads·(nope_dim + rope_dim)]`.
    pub q: LatentQuery,
    /// `[rank + rope_dim, hidden]`.
    pub kv_a: LinearSpec,
    /// Of the latent.
    pub kv_norm: NormSpec,
    /// Keys and values.
    pub form: LatentForm,
    /// `[hidden, heads·v_dim]`.
    pub o: LinearSpec,
    /// Rotary embedding; `None` is NoPE.
    pub rope: Option<RopeSpec>,
    /// Factor on the queries by position.
    pub temperature: Option<TemperatureSpec>,
    /// Factor on q·k.
    pub scale: f32,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Those at a distance below this.
    Sliding(usize),
    /// Those of its own chunk, which has this many positions.
    Chunk(usize),
}

/// What makes a gate of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// The number itself.
    Plain,
    /// `σ`.
    Sigmoid,
    /// `ln(1 + e^x)`.
    Softplus,
}

/// Rotary position embedding (Su et al. 2021), any scaling reduced to a table of frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Dimensions of a head that turn (the first ones); even.
    pub dims: usize,
    /// Pairs (2i, 2i+1) instead of (i, i + dims/2).
    pub interleaved: bool,
    /// Radians per position of each pair, `[dims/2]`.
    pub frequencies: Vec<f64>,
    /// Factor on the rotated values (yarn's mscale, longrope).
    pub amplitude: f32,
}
