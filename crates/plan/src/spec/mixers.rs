//! Mixers other than attention as data.

use super::{LinearSpec, NormSpec};

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
    /// Over q, k and v.
    pub conv: ConvSpec,
    /// Tensor name, `[v_heads]`.
    pub a_log: String,
    /// Tensor name, `[v_heads]`.
    pub dt_bias: String,
    /// Of each value head, before `silu(z)` scales it.
    pub norm: NormSpec,
    /// `[hidden, v_heads·v_dim]`.
    pub out: LinearSpec,
}

/// Mamba-2 (Dao & Gu 2024).
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
    /// `[gate, x, B, C, dt]`: `[2·heads·head_dim + 2·groups·state + heads, hidden]`.
    pub input: LinearSpec,
    /// Over x, B and C.
    pub conv: ConvSpec,
    /// Tensor name, `[heads]`.
    pub a_log: String,
    /// Tensor name, `[heads]`.
    pub d: String,
    /// Tensor name, `[heads]`.
    pub dt_bias: String,
    /// Bounds of the time step.
    pub dt_limit: (f32, f32),
    /// Of `silu(gate) · y`, in `norm_groups` parts with weights of their own.
    pub norm: NormSpec,
    /// Parts of the norm.
    pub norm_groups: usize,
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
