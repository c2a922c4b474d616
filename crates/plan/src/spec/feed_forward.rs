//! Dense and routed feed-forward blocks as data.

use super::{LinearSpec, NormSpec};

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
    /// Gate and up projections.
    pub inner: Inner,
    /// Down projection `[hidden, d_ff]`.
    pub down: LinearSpec,
}

/// Projections into a dense MLP.
#[derive(Clone, Debug, PartialEq)]
pub enum Inner {
    /// Gate `[d_ff, hidden]`, if the activation has one, and up `[d_ff, hidden]`.
    Apart(Option<LinearSpec>, LinearSpec),
    /// One projection: rows of gate, then of up.
    Fused(LinearSpec),
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
    /// Phi-3.5-MoE: pick after pick, the best remaining logit by a softmax over those remaining ones that are
    /// within `2 · jitter` of it, relative to the larger magnitude of the two.
    SparseMixer {
        /// Jitter.
        jitter: f32,
    },
}

/// Most groups of a group-limited router; a config with more is refused.
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
    /// The router reads the residual stream through this norm instead of the block's input (Gemma 4).
    pub router_norm: Option<NormSpec>,
    /// The weight of the one picked expert scales its input, not its output (Llama 4).
    pub input_gate: bool,
    /// Experts work in a narrower space.
    pub latent: Option<LatentExperts>,
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

/// Projections around routed experts (Nemotron 3).
#[derive(Clone, Debug, PartialEq)]
pub struct LatentExperts {
    /// Width the experts work in.
    pub width: usize,
    /// `[width, hidden]`.
    pub down: LinearSpec,
    /// `[hidden, width]`.
    pub up: LinearSpec,
}

/// A shared expert, optionally scaled by `sigmoid(gate·x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSpec {
    /// The expert.
    pub mlp: MlpSpec,
    /// Scalar gate `[1, hidden]`.
    pub gate: Option<LinearSpec>,
    /// Weights of the routed sum and of this expert by a softmax of two logits `[2, hidden]` (Klear).
    pub mix: Option<LinearSpec>,
}
