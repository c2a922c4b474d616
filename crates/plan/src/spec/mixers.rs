//! Mixers other than attention as data.

use super::{Activation, LinearSpec, NormSpec};

/// Depthwise causal convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvSpec {
    /// Tensor path; `.weight` is `[channels, kernel, 1]`.
    pub path: String,
    /// Whether `path.bias` `[channels]` exists.
    pub bias: bool,
    /// Width of the kernel.
    pub kernel: usize,
}

/// Projections into a gated delta net.
#[derive(Clone, Debug, PartialEq)]
pub enum DeltaProjections {
    /// Grouped by key head: `[q, k, v, z]` and `[beta, decay]` (Qwen3-Next).
    Grouped {
        /// `[2·k_heads·k_dim + 2·v_heads·v_dim, hidden]`.
        qkvz: LinearSpec,
        /// `[2·v_heads, hidden]`.
        ba: LinearSpec,
    },
    /// Apart (Qwen3.5).
    Apart {
        /// `[2·k_heads·k_dim + v_heads·v_dim, hidden]`.
        qkv: LinearSpec,
        /// `[v_heads·v_dim, hidden]`.
        z: LinearSpec,
        /// `[v_heads, hidden]`.
        beta: LinearSpec,
        /// `[v_heads, hidden]`.
        decay: LinearSpec,
    },
    /// Apart, with low-rank decays of every key channel and gates (Kimi Linear). Convolutions are apart too.
    LowRank {
        /// Queries, keys, values: `[heads·dim, hidden]`.
        qkv: [LinearSpec; 3],
        /// `[v_heads, hidden]`.
        beta: LinearSpec,
        /// `[rank, hidden]` and `[k_heads·k_dim, rank]`.
        decay: [LinearSpec; 2],
        /// `[rank, hidden]` and `[v_heads·v_dim, rank]`.
        z: [LinearSpec; 2],
        /// Width between.
        rank: usize,
    },
}

/// Gated delta net (Yang et al. 2024).
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaSpec {
    /// Key heads.
    pub k_heads: usize,
    /// Value heads, a multiple of the key heads.
    pub v_heads: usize,
    /// Width of a key head.
    pub k_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
    /// Into it.
    pub projections: DeltaProjections,
    /// Over q, k and v, or one over each.
    pub convs: Vec<ConvSpec>,
    /// Tensor name, `[v_heads]`.
    pub a_log: String,
    /// Tensor name, `[v_heads]`; with low-rank decays `[v_heads·k_dim]`.
    pub dt_bias: String,
    /// Of each value head, before the gate scales it.
    pub norm: NormSpec,
    /// The gate: `silu(z)` or `σ(z)`.
    pub gate: Activation,
    /// `[hidden, v_heads·v_dim]`.
    pub out: LinearSpec,
}

/// Where time step, B and C of a state space come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SsmInputs {
    /// Mamba-2 (Dao & Gu 2024): from the input projection, `[gate, x, B, C, dt]`; B and C pass the
    /// convolution.
    Joint {
        /// Tensor name, `[heads]`.
        dt_bias: String,
        /// Of `silu(gate) · y`, in `norm_groups` parts with weights of their own.
        norm: NormSpec,
        /// Parts of the norm.
        norm_groups: usize,
    },
    /// Mamba-1 (Gu & Dao 2023): from what the convolution gives; the input projection is `[x, gate]`. Heads
    /// are channels.
    Selected {
        /// `[dt, B, C]`: `[rank + 2·state, heads]`.
        x_proj: LinearSpec,
        /// `[heads, rank]`, with the bias of the time step.
        dt_proj: LinearSpec,
        /// Of dt, B and C.
        norms: [NormSpec; 3],
        /// Width of dt.
        rank: usize,
    },
}

/// A state space layer.
#[derive(Clone, Debug, PartialEq)]
pub struct MambaSpec {
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Groups that share B and C.
    pub groups: usize,
    /// Width of the state.
    pub state: usize,
    /// Input projection.
    pub input: LinearSpec,
    /// Over x, or x, B and C.
    pub conv: ConvSpec,
    /// Time step, B and C.
    pub inputs: SsmInputs,
    /// Tensor name, `[heads]`; for Mamba-1 `[heads, state]`.
    pub a_log: String,
    /// Tensor name, `[heads]`.
    pub d: String,
    /// Bounds of the time step.
    pub dt_limit: (f32, f32),
    /// `[hidden, heads·head_dim]`.
    pub out: LinearSpec,
}

/// Gated short convolution (LFM2): `out · (C ⊙ conv(B ⊙ x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConvSpec {
    /// `[B, C, x]`: `[3·hidden, hidden]`.
    pub input: LinearSpec,
    /// Over `hidden` channels.
    pub conv: ConvSpec,
    /// `[hidden, hidden]`.
    pub out: LinearSpec,
}
