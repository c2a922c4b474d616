//! The operations of a decode program. Each has its contract and reference in `kernels/src/<op>/`.

use crate::mixers::{ConvOp, DeltaNetOp, SsmOp};
use crate::program::{BufferId, CacheId, RopeId, WeightId};
use crate::spec::{Activation, GateKind, NormKind, RouterRule, Window};

/// Norm with weights resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormOp {
    /// Rms or layer norm.
    pub kind: NormKind,
    /// Learned scale, `[dim]`, or `[chunks · dim]` if `per_chunk`.
    pub weight: Option<WeightId>,
    /// Learned offset, like the scale.
    pub bias: Option<WeightId>,
    /// Whether each chunk has weights of its own.
    pub per_chunk: bool,
    /// Added to the mean square (or variance).
    pub eps: f32,
    /// Factor on the result.
    pub scale: f32,
    /// Independent chunks per row (heads; 1 for the whole row).
    pub chunks: usize,
    /// Width of a chunk.
    pub dim: usize,
    /// Input.
    pub x: BufferId,
    /// Output; may be the input.
    pub out: BufferId,
}

/// Softmax attention of the step's rows over a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOp {
    /// Keys and values.
    pub cache: CacheId,
    /// Queries `[heads · head_dim]`.
    pub q: BufferId,
    /// Output `[heads · v_dim]`.
    pub out: BufferId,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// Which of the cached keys are seen; all without.
    pub window: Option<Window>,
    /// Per-head sink logits.
    pub sinks: Option<WeightId>,
    /// `cap·tanh(s/cap)` on scores.
    pub softcap: Option<f32>,
}

/// Parts of a buffer: of head h the elements from `first + h · stride` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strided {
    /// The buffer.
    pub buffer: BufferId,
    /// First element of the first head.
    pub first: usize,
    /// From one head to the next; 0 takes the same elements for all.
    pub stride: usize,
}

/// One projection of all experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertWeights {
    /// `[experts, out, in]`.
    pub stack: WeightId,
    /// `[experts, out]`.
    pub bias: Option<WeightId>,
}

/// Routed experts: `out = Σ_k weight_k · down_k(act(gate_k·x, up_k·x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertsOp {
    /// Input `[hidden]`.
    pub x: BufferId,
    /// Choice from [`Op::Router`].
    pub route: BufferId,
    /// Output `[hidden]`.
    pub out: BufferId,
    /// Number of experts.
    pub experts: usize,
    /// Experts per token.
    pub top_k: usize,
    /// Width in and out.
    pub hidden: usize,
    /// Inner width.
    pub d_ff: usize,
    /// Activation.
    pub activation: Activation,
    /// Gate projections, if the activation has them.
    pub gate: Option<ExpertWeights>,
    /// Up projections.
    pub up: ExpertWeights,
    /// Down projections.
    pub down: ExpertWeights,
}

/// One operation. Each has its contract and reference in `kernels/src/<op>/`.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out ← scale · table[token]`.
    Embed {
        /// `[vocab, hidden]`.
        table: WeightId,
        /// Factor.
        scale: f32,
        /// `[hidden]`.
        out: BufferId,
    },
    /// `out ← norm(x)`.
    Norm(NormOp),
    /// `out ← W·x + b`.
    Linear {
        /// `[rows, cols]`.
        weight: WeightId,
        /// `[rows]`.
        bias: Option<WeightId>,
        /// `[cols]`.
        x: BufferId,
        /// `[rows]`.
        out: BufferId,
    },
    /// `out_h ← W_h · x_h` for every head h.
    HeadLinear {
        /// `[heads, rows, cols]`.
        weight: WeightId,
        /// Heads.
        heads: usize,
        /// Outputs per head.
        rows: usize,
        /// Inputs per head.
        cols: usize,
        /// `[heads · cols]`.
        x: BufferId,
        /// `[heads · rows]`.
        out: BufferId,
    },
    /// Copies `len` elements of each of some heads.
    Copy {
        /// From.
        x: Strided,
        /// To; another buffer, or elements apart from those read.
        out: Strided,
        /// Heads.
        heads: usize,
        /// Elements per head.
        len: usize,
    },
    /// Rotates the heads of `x` in place by the row's position.
    Rope {
        /// Frequencies.
        rope: RopeId,
        /// Heads in `x`.
        heads: usize,
        /// Width of a head.
        head_dim: usize,
        /// First element of a head that turns.
        first: usize,
        /// Rotated in place.
        x: BufferId,
    },
    /// Writes the row's keys and values at its position.
    KvAppend {
        /// Destination.
        cache: CacheId,
        /// `[kv_heads · k_dim]`.
        k: BufferId,
        /// `[kv_heads · v_dim]`.
        v: BufferId,
    },
    /// Attention over everything cached up to the row's position.
    Attention(AttentionOp),
    /// Causal convolution.
    Conv(ConvOp),
    /// Gated delta rule.
    DeltaNet(DeltaNetOp),
    /// Selective state space.
    Ssm(SsmOp),
    /// `x ← x · (1 + scale · ln(1 + ⌊(position + shift) / period⌋))`: sharper attention far into a context (Llama 4).
    Temperature {
        /// In place.
        x: BufferId,
        /// Elements per row.
        width: usize,
        /// Factor on the logarithm.
        scale: f32,
        /// Positions per step.
        period: f32,
        /// Added to the position.
        shift: f32,
    },
    /// `out ← act(gate, up)`, elementwise.
    Activate {
        /// Which.
        activation: Activation,
        /// Gate branch.
        gate: Option<BufferId>,
        /// Up branch.
        up: BufferId,
        /// Result.
        out: BufferId,
        /// Elements per row.
        width: usize,
    },
    /// From router logits to `[k indices as f32, k weights]`, indices ascending.
    Router {
        /// Logits `[experts]`.
        logits: BufferId,
        /// `[2·top_k]`.
        out: BufferId,
        /// Number of experts.
        experts: usize,
        /// The rule.
        rule: RouterRule,
        /// Bias on the choice, `[experts]`.
        correction: Option<WeightId>,
        /// Factor on the weight of each expert, `[experts]`.
        per_expert: Option<WeightId>,
        /// Where the one picked weight goes if it is to scale the experts' input; their own weight is then 1. `[1]`.
        input_gate: Option<BufferId>,
    },
    /// Routed experts and their weighted sum.
    Experts(ExpertsOp),
    /// `x_h ← f(gate_h) · x_h` for every head h.
    HeadGate {
        /// `f`.
        kind: GateKind,
        /// `[heads]`.
        gate: BufferId,
        /// Heads.
        heads: usize,
        /// Scaled in place.
        x: BufferId,
        /// Elements per head.
        width: usize,
    },
    /// `x ← x + scale · y`.
    Add {
        /// Accumulator.
        x: BufferId,
        /// Addend.
        y: BufferId,
        /// Factor on `y`.
        scale: f32,
        /// Elements per row.
        width: usize,
    },
    /// `x ← cap·tanh(scale·by·x/cap)`, or `scale·by·x` without a cap.
    Scale {
        /// In place.
        x: BufferId,
        /// Factor.
        scale: f32,
        /// Learned factor `[1]`.
        by: Option<WeightId>,
        /// Soft cap.
        softcap: Option<f32>,
        /// Elements per row.
        width: usize,
    },
}

impl Op {
    /// Name of the op. It is the folder's name, but for `kv_append` and `copy`, which only move memory, `head_linear`,
    /// which is `linear` per head, and for `head_gate`, `scale` and `temperature`, which are in `add`.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Norm(_) => "norm",
            Op::Linear { .. } => "linear",
            Op::HeadLinear { .. } => "head_linear",
            Op::Copy { .. } => "copy",
            Op::Rope { .. } => "rope",
            Op::KvAppend { .. } => "kv_append",
            Op::Attention(_) => "attention",
            Op::Conv(_) => "conv",
            Op::DeltaNet(_) => "delta_net",
            Op::Ssm(_) => "ssm",
            Op::Temperature { .. } => "temperature",
            Op::Activate { .. } => "activate",
            Op::Router { .. } => "router",
            Op::Experts(_) => "experts",
            Op::HeadGate { .. } => "head_gate",
            Op::Add { .. } => "add",
            Op::Scale { .. } => "scale",
        }
    }

    /// The buffer the op writes (a router may also write its input gate); `None` for a cache.
    pub const fn output(&self) -> Option<BufferId> {
        match self {
            Op::Embed { out, .. }
            | Op::Linear { out, .. }
            | Op::HeadLinear { out, .. }
            | Op::Copy { out: Strided { buffer: out, .. }, .. }
            | Op::Activate { out, .. }
            | Op::Router { out, .. }
            | Op::Norm(NormOp { out, .. })
            | Op::Attention(AttentionOp { out, .. })
            | Op::Conv(ConvOp { out, .. })
            | Op::DeltaNet(DeltaNetOp { out, .. })
            | Op::Ssm(SsmOp { out, .. })
            | Op::Experts(ExpertsOp { out, .. }) => Some(*out),
            Op::Rope { x, .. }
            | Op::Temperature { x, .. }
            | Op::HeadGate { x, .. }
            | Op::Add { x, .. }
            | Op::Scale { x, .. } => Some(*x),
            Op::KvAppend { .. } => None,
        }
    }

    /// Weights the op reads.
    pub fn weights(&self) -> Vec<WeightId> {
        let optional = match self {
            Op::Embed { table, .. } => vec![Some(*table)],
            Op::Norm(norm) => vec![norm.weight, norm.bias],
            Op::Linear { weight, bias, .. } => vec![Some(*weight), *bias],
            Op::HeadLinear { weight, .. } => vec![Some(*weight)],
            Op::Attention(attention) => vec![attention.sinks],
            Op::Conv(conv) => vec![Some(conv.weight), conv.bias],
            Op::DeltaNet(net) => vec![Some(net.a_log), Some(net.dt_bias)],
            Op::Ssm(ssm) => vec![Some(ssm.a_log), Some(ssm.d), ssm.dt_bias],
            Op::Scale { by, .. } => vec![*by],
            Op::Router { correction, per_expert, .. } => vec![*correction, *per_expert],
            Op::Experts(experts) => {
                let all = [experts.gate, Some(experts.up), Some(experts.down)];
                all.into_iter().flatten().flat_map(|weights| [Some(weights.stack), weights.bias]).collect()
            }
            _ => Vec::new(),
        };
        optional.into_iter().flatten().collect()
    }
}
