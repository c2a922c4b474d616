//! `ModelSpec`: what a model computes, as plain data. No family has code of its own past this point.
//!
//! A model is a stack of layers, a layer a list of residual blocks
//! `h ← h + scale · post_norm(body(pre_norm(h)))`. A new mixer is a new [`Body`] variant; parallel branches
//! are a body that holds blocks.

mod attention;
mod feed_forward;
mod mixers;

pub use attention::{
    AttentionSpec, GateKind, LatentForm, LatentQuery, LatentSpec, OutputGate, Projections, QkNormSpec,
    QkNormWidth, RopeSpec, TemperatureSpec, Window,
};
pub use feed_forward::{
    Activation, ExpertSpec, GROUPS_MAX, Groups, Inner, LatentExperts, MlpSpec, MoeSpec, RouterRule, Score,
    SharedSpec,
};
pub use mixers::{ConvSpec, DeltaProjections, DeltaSpec, MambaSpec, ShortConvSpec, SsmInputs};

/// A whole decoder-only language model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Row of the family table this came from.
    pub family: &'static str,
    /// `model_type` of the whole checkpoint where this is only its text part.
    pub part_of: Option<String>,
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
    /// A second embedding, a part of which every layer reads.
    pub per_layer: Option<PerLayerSpec>,
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
    /// Tensor name of a factor `[1]` on the residual stream after the last block.
    pub scale: Option<String>,
}

/// `h ← h + residual_scale · post_norm(body(pre_norm(h)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSpec {
    /// Norm of the input.
    pub pre_norm: Option<NormSpec>,
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
    /// Softmax attention over a latent.
    Latent(LatentSpec),
    /// Gated delta net.
    Delta(DeltaSpec),
    /// State space.
    Mamba(MambaSpec),
    /// Gated short convolution.
    ShortConv(ShortConvSpec),
    /// A dense gated MLP.
    Mlp(MlpSpec),
    /// Routed experts, with or without a shared one.
    Moe(MoeSpec),
    /// `projection · (gelu(gate · h) ⊙ part of the second embedding)`.
    PerLayer {
        /// `[width, hidden]`.
        gate: LinearSpec,
        /// `[hidden, width]`.
        projection: LinearSpec,
    },
    /// The sum of blocks. Those with a norm of their own read the residual stream through it, the others what
    /// this block's norm gives; their `residual_scale` counts.
    Sum(Vec<BlockSpec>),
}

/// Per-layer inputs (Gemma 3n, Gemma 4): `(norm(projection · h / √hidden) + √width · embed) / √2`, `width`
/// values a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct PerLayerSpec {
    /// Values per layer.
    pub width: usize,
    /// Rows of the table.
    pub vocab: usize,
    /// Table `[vocab, layers·width]`.
    pub embed: String,
    /// `[layers·width, hidden]`.
    pub projection: LinearSpec,
    /// Of each layer's part.
    pub norm: NormSpec,
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
    /// Tensor name of the scale; `None` is a norm without weight.
    pub weight: Option<String>,
    /// Tensor name of the offset.
    pub bias: Option<String>,
    /// The scale is stored less one (Gemma 3).
    pub plus_one: bool,
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
