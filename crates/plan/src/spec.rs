//! `ModelSpec`: what a model computes, as plain data. No family has code of its own past this point.
//!
//! A model is a stack of layers, a layer a list of residual blocks `h ← h + scale · post_norm(body(pre_norm(h)))`.
//! New mixers (latent attention, delta nets, convolutions, state spaces) are new [`Body`] variants with an op
//! folder each; parallel branches are a body that holds blocks.

/// A whole decoder-only language model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Row of the family table this came from.
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding table and of the logits.
    pub vocab: usize,
    /// Positions the model was made for.
    pub context_max: usize,
    /// Tensor path of the embedding table `[vocab, hidden]`.
    pub embed: String,
    /// Factor on the embeddings.
    pub embed_scale: f32,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// Norm before the head.
    pub final_norm: NormSpec,
    /// Output projection.
    pub head: HeadSpec,
}

/// One layer: residual blocks in order.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Usually attention, then MLP or experts.
    pub blocks: Vec<BlockSpec>,
}

/// `h ← h + residual_scale · post_norm(body(pre_norm(h)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSpec {
    /// Norm of the input.
    pub pre_norm: NormSpec,
    /// The computation.
    pub body: Body,
    /// Norm of the output, where the family has one.
    pub post_norm: Option<NormSpec>,
    /// Factor on the branch before it joins the residual stream.
    pub residual_scale: f32,
}

/// What a block computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Softmax attention with grouped query heads.
    Attention(AttentionSpec),
    /// A dense gated MLP.
    Mlp(MlpSpec),
    /// Routed experts, with or without a shared one.
    Moe(MoeSpec),
}

/// How a norm scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x)` (Zhang & Sennrich 2019).
    Rms,
    /// `(x - mean) / std` (Ba et al. 2016).
    Layer,
}

/// A normalisation with optional learned weight and bias.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// Rms or layer norm.
    pub kind: NormKind,
    /// Tensor path without `.weight`; `None` is a norm without weight.
    pub path: Option<String>,
    /// Whether `path.bias` exists.
    pub bias: bool,
    /// Added to the mean square (or variance).
    pub eps: f32,
    /// Factor on the result.
    pub scale: f32,
}

/// A linear layer by tensor path.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSpec {
    /// Tensor path without `.weight`.
    pub path: String,
    /// Whether `path.bias` exists.
    pub bias: bool,
}

/// Where the norm of queries and keys acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNormWidth {
    /// Each head on its own.
    Head,
    /// The whole projection before it is split into heads.
    Full,
}

/// Norms of queries and keys, before the rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct QkNormSpec {
    /// Per head or full width.
    pub width: QkNormWidth,
    /// Norm of the queries.
    pub q: NormSpec,
    /// Norm of the keys.
    pub k: NormSpec,
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
    /// Query projection `[heads·head_dim, hidden]`.
    pub q: LinearSpec,
    /// Key projection.
    pub k: LinearSpec,
    /// Value projection.
    pub v: LinearSpec,
    /// Output projection `[hidden, heads·v_dim]`.
    pub o: LinearSpec,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNormSpec>,
    /// Rotary embedding; `None` is NoPE.
    pub rope: Option<RopeSpec>,
    /// Factor on q·k.
    pub scale: f32,
    /// Which of the keys before it a query sees; all without.
    pub window: Option<Window>,
    /// Tensor name of per-head sink logits.
    pub sinks: Option<String>,
    /// `cap·tanh(s/cap)` on scores.
    pub softcap: Option<f32>,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Those at a distance below this.
    Sliding(usize),
    /// Those of its own chunk of so many positions.
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

/// Expert and MLP activations, and the elementwise gates of mixers; most combine two projections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `silu(gate) · up` (Shazeer 2020).
    SwiGlu,
    /// `gelu_tanh(gate) · up`.
    GeGlu,
    /// gpt-oss: gate ≤ limit, up in ±limit, `(up+1) · gate · σ(alpha·gate)`.
    ClampedSwiGlu {
        /// Clamp of both branches.
        limit: f32,
        /// Slope of the sigmoid.
        alpha: f32,
    },
    /// Step-3.5: `min(silu(gate), limit) · clamp(up, ±limit)`.
    LimitedSwiGlu {
        /// Bound.
        limit: f32,
    },
    /// `σ(gate) · up`.
    Sigmoid,
    /// `gate · up`.
    Product,
    /// `relu(up)²`, no gate projection.
    Relu2,
    /// `gelu_tanh(up)`, no gate projection.
    Gelu,
    /// `silu(up)`, no gate projection.
    Silu,
}

impl Activation {
    /// Whether a gate projection exists.
    pub const fn gated(self) -> bool {
        !matches!(self, Activation::Relu2 | Activation::Gelu | Activation::Silu)
    }
}

/// A dense MLP: `down(act(gate·x, up·x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpSpec {
    /// Inner width.
    pub d_ff: usize,
    /// Activation.
    pub activation: Activation,
    /// Gate projection `[d_ff, hidden]`; `None` when the activation has none.
    pub gate: Option<LinearSpec>,
    /// Up projection `[d_ff, hidden]`.
    pub up: LinearSpec,
    /// Down projection `[hidden, d_ff]`.
    pub down: LinearSpec,
}

/// How scores become choices and weights. On ties the lowest expert index wins.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterRule {
    /// Experts picked per token.
    pub top_k: usize,
    /// Score function.
    pub score: Score,
    /// Tensor name of a per-expert bias that acts on the choice only (DeepSeek-V3).
    pub correction: Option<String>,
    /// Group-limited choice (DeepSeek-V2/V3).
    pub groups: Option<Groups>,
    /// Divide the picked weights by their sum plus this.
    pub normalise: Option<f32>,
    /// Factor on the weights.
    pub scale: f32,
    /// Tensor name of a factor on each expert's weight, `[experts]` (Gemma 4).
    pub per_expert: Option<String>,
}

/// Score functions of a router.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Softmax over all experts, then top-k.
    Softmax,
    /// Top-k on logits, then softmax over the picked ones.
    TopKSoftmax,
    /// Sigmoid of each logit.
    Sigmoid,
    /// Phi-3.5-MoE: pick after pick, the best remaining logit by a softmax over those remaining ones that are within
    /// `2 · jitter` of it, relative to the larger magnitude of the two.
    SparseMixer {
        /// Jitter.
        jitter: f32,
    },
}

/// Most groups of a group-limited router; a config with more is to be refused.
pub const GROUPS_MAX: usize = 64;

/// Keep the experts of the best `keep` of `count` groups: those of the others compete with a score of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups, at most [`GROUPS_MAX`]; divides that of the experts.
    pub count: usize,
    /// Groups kept.
    pub keep: usize,
    /// Group score: the best member, or the sum of the two best.
    pub best_two: bool,
}

/// Routed experts with router and optional shared expert.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeSpec {
    /// Number of experts.
    pub experts: usize,
    /// Inner width of an expert.
    pub d_ff: usize,
    /// Activation of the experts.
    pub activation: Activation,
    /// Router projection `[experts, hidden]`.
    pub router: LinearSpec,
    /// From logits to choice and weights.
    pub rule: RouterRule,
    /// Gate, up, down of the experts; gate is `None` when the activation has none.
    pub gate: Option<ExpertSpec>,
    /// Up projections.
    pub up: ExpertSpec,
    /// Down projections.
    pub down: ExpertSpec,
    /// Expert every token passes.
    pub shared: Option<SharedSpec>,
}

/// One projection of all experts.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertSpec {
    /// Stacked tensor path, `[experts, out, in]`.
    pub path: String,
    /// Path with `{}` for the expert number where files hold experts apart.
    pub each: Option<String>,
    /// Whether `path.bias` `[experts, out]` exists.
    pub bias: bool,
}

/// A shared expert, optionally scaled by `sigmoid(gate·x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSpec {
    /// The expert.
    pub mlp: MlpSpec,
    /// Scalar gate `[1, hidden]`.
    pub gate: Option<LinearSpec>,
}

/// Output projection.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// Path of the projection; the embedding's when tied.
    pub linear: LinearSpec,
    /// Shares the embedding table.
    pub tied: bool,
    /// Factor on the logits.
    pub scale: f32,
    /// `cap·tanh(logit/cap)`.
    pub softcap: Option<f32>,
}
