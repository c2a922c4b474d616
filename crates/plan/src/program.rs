//! The decode program: a typed, printable list of operations over named buffers. Every backend runs this list.

use std::fmt;

use crate::spec::{Activation, NormKind, RopeSpec, RouterRule};

/// Index of a weight in [`Plan::weights`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub usize);

/// Index of a buffer in [`Plan::buffers`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// Index of a cache in [`Plan::caches`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheId(pub usize);

/// Index of a rotary table in [`Plan::ropes`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RopeId(pub usize);

/// A tensor the program reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Matrices and stacks: path without `.weight`. Vectors: the full tensor name.
    pub path: String,
    /// Stacks: path with `{}` for the expert where files hold experts apart.
    pub each: Option<String>,
    /// What the program expects.
    pub shape: WeightShape,
}

/// Expected shape of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightShape {
    /// `len` floats.
    Vector(usize),
    /// `[rows, cols]`, possibly quantised.
    Matrix(usize, usize),
    /// `[experts, rows, cols]`, possibly quantised.
    Stack(usize, usize, usize),
}

impl WeightShape {
    /// Number of parameters.
    pub const fn elements(self) -> usize {
        match self {
            WeightShape::Vector(len) => len,
            WeightShape::Matrix(rows, cols) => rows * cols,
            WeightShape::Stack(experts, rows, cols) => experts * rows * cols,
        }
    }
}

/// A buffer of f32, one row per token of the step.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Name in dumps.
    pub name: &'static str,
    /// f32 per row.
    pub width: usize,
}

/// State that outlives a step, per sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// Layer it belongs to.
    pub layer: usize,
    /// What it holds.
    pub kind: CacheKind,
}

/// Kinds of cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// Keys and values per position.
    Kv {
        /// Key/value heads.
        kv_heads: usize,
        /// Width of a key head.
        k_dim: usize,
        /// Width of a value head.
        v_dim: usize,
    },
}

impl CacheKind {
    /// Elements per position.
    pub const fn elements_per_position(self) -> usize {
        match self {
            CacheKind::Kv { kv_heads, k_dim, v_dim } => kv_heads * (k_dim + v_dim),
        }
    }
}

/// Norm with weights resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormOp {
    /// Rms or layer norm.
    pub kind: NormKind,
    /// Learned scale, `[dim]`.
    pub weight: Option<WeightId>,
    /// Learned offset, `[dim]`.
    pub bias: Option<WeightId>,
    /// Added to the mean square (or variance).
    pub eps: f32,
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
    /// Keys with distance < window are seen.
    pub window: Option<usize>,
    /// Per-head sink logits.
    pub sinks: Option<WeightId>,
    /// `cap·tanh(s/cap)` on scores.
    pub softcap: Option<f32>,
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
    /// Rotates the heads of `x` in place by the row's position.
    Rope {
        /// Frequencies.
        rope: RopeId,
        /// Heads in `x`.
        heads: usize,
        /// Width of a head.
        head_dim: usize,
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
    },
    /// Routed experts and their weighted sum.
    Experts(ExpertsOp),
    /// `x ← sigmoid(gate) · x`, one gate per row.
    SigmoidGate {
        /// `[1]`.
        gate: BufferId,
        /// Scaled in place.
        x: BufferId,
        /// Elements per row.
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
    /// `x ← cap·tanh(scale·x/cap)`, or `scale·x` without a cap.
    ScaleLogits {
        /// In place.
        x: BufferId,
        /// Factor.
        scale: f32,
        /// Soft cap.
        softcap: Option<f32>,
        /// Elements per row.
        width: usize,
    },
}

impl Op {
    /// Name of the op. It is the folder's name, but for `kv_append`, which only moves memory, and for
    /// `sigmoid_gate` and `scale_logits`, which are in `add`.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Norm(_) => "norm",
            Op::Linear { .. } => "linear",
            Op::Rope { .. } => "rope",
            Op::KvAppend { .. } => "kv_append",
            Op::Attention(_) => "attention",
            Op::Activate { .. } => "activate",
            Op::Router { .. } => "router",
            Op::Experts(_) => "experts",
            Op::SigmoidGate { .. } => "sigmoid_gate",
            Op::Add { .. } => "add",
            Op::ScaleLogits { .. } => "scale_logits",
        }
    }

    /// The buffer the op writes; `None` for a cache.
    pub const fn output(&self) -> Option<BufferId> {
        match self {
            Op::Embed { out, .. }
            | Op::Linear { out, .. }
            | Op::Activate { out, .. }
            | Op::Router { out, .. }
            | Op::Norm(NormOp { out, .. })
            | Op::Attention(AttentionOp { out, .. })
            | Op::Experts(ExpertsOp { out, .. }) => Some(*out),
            Op::Rope { x, .. }
            | Op::SigmoidGate { x, .. }
            | Op::Add { x, .. }
            | Op::ScaleLogits { x, .. } => Some(*x),
            Op::KvAppend { .. } => None,
        }
    }

    /// Weights the op reads.
    pub fn weights(&self) -> Vec<WeightId> {
        let optional = match self {
            Op::Embed { table, .. } => vec![Some(*table)],
            Op::Norm(norm) => vec![norm.weight, norm.bias],
            Op::Linear { weight, bias, .. } => vec![Some(*weight), *bias],
            Op::Attention(attention) => vec![attention.sinks],
            Op::Router { correction, .. } => vec![*correction],
            Op::Experts(experts) => {
                let all = [experts.gate, Some(experts.up), Some(experts.down)];
                all.into_iter().flatten().flat_map(|weights| [Some(weights.stack), weights.bias]).collect()
            }
            _ => Vec::new(),
        };
        optional.into_iter().flatten().collect()
    }
}

/// One line of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Layer it belongs to; `None` before the first and after the last.
    pub layer: Option<usize>,
    /// The operation.
    pub op: Op,
}

/// Rotary tables, shared by the layers that have the same.
pub type Rope = RopeSpec;

impl fmt::Display for WeightShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightShape::Vector(len) => write!(f, "[{len}]"),
            WeightShape::Matrix(rows, cols) => write!(f, "[{rows}, {cols}]"),
            WeightShape::Stack(experts, rows, cols) => write!(f, "[{experts}, {rows}, {cols}]"),
        }
    }
}
