//! The columns of the family table.

use crate::Score;

/// A row: everything in which one family differs from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// `model_type` in config.json.
    pub name: &'static str,
    /// Tensor names.
    pub names: Names,
    /// Width of a head.
    pub head_dim: HeadDim,
    /// Biases of the query, key and value projections.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub o_bias: Bias,
    /// Biases of dense MLPs.
    pub mlp_bias: Bias,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Rotary embedding.
    pub rope: RopeRule,
    /// Config key of a sliding window on every layer.
    pub window: Option<&'static str>,
    /// `tie_word_embeddings` where the config does not say.
    pub tied: bool,
    /// Config key of the number of experts; `None` is dense.
    pub experts: Option<&'static str>,
    /// Config key of the experts per token.
    pub top_k: &'static str,
    /// Config key of an expert's inner width.
    pub expert_width: Width,
    /// Layers without experts.
    pub dense_layers: DenseLayers,
    /// Router scores.
    pub score: Score,
    /// Whether picked weights are divided by their sum.
    pub normalise: Normalise,
    /// Shared expert.
    pub shared: Shared,
}

/// Tensor names; `{}` is the layer (or, in `experts_apart`, the expert).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub embed: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
    pub layer: &'static str,
    pub attention_norm: &'static str,
    pub attention: &'static str,
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    pub o: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub mlp_norm: &'static str,
    pub mlp: &'static str,
    pub router: &'static str,
    pub experts: &'static str,
    /// Gate, up, down of one expert in files that hold experts apart.
    pub experts_apart: Option<[&'static str; 3]>,
    pub shared: &'static str,
    pub shared_gate: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

/// Where a head's width comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeadDim {
    /// `head_dim`, or hidden / heads where absent.
    Config,
    /// hidden / heads, whatever `head_dim` says.
    Hidden,
}

/// Whether a projection has a bias.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bias {
    Never,
    Always,
    /// As this config key says; absent is no.
    Key(&'static str),
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QkNorm {
    None,
    Head,
    Full,
}

/// Rotary embedding.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RopeRule {
    /// `rope_theta` only; `rope_scaling` ignored, as mlx-lm does for this family.
    Plain,
    /// `rope_theta` with `rope_scaling`.
    Scaled,
}

/// Config key of a width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width(pub &'static str);

/// Which layers are dense in a family with experts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DenseLayers {
    /// None.
    None,
    /// `mlp_only_layers`, and those whose number + 1 is no multiple of `decoder_sparse_step`.
    SparseStep,
}

/// Whether picked weights are divided by their sum.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Normalise {
    Never,
    /// As this config key says; absent is no.
    Key(&'static str),
}

/// Shared expert.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shared {
    None,
    /// Scaled by a sigmoid gate; config key of its width.
    Gated(&'static str),
}
