//! The columns of the family table. A `key` is a key of config.json, a name a tensor's.

use super::attention_row::{Attention, Bias};
use crate::{NormKind, Score};

/// A row: everything in which one family differs from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// `model_type` in config.json.
    pub name: &'static str,
    /// Other `model_type`s that mean the same.
    pub also: &'static [&'static str],
    /// What a config that leaves keys out means, as an object: of a model, and of the text part of several.
    pub defaults: [&'static str; 2],
    /// Tensor names.
    pub names: Names,
    /// Norms.
    pub norm: NormRule,
    /// Embedding table and head are one.
    pub tied: Tied,
    /// Factor on the embeddings.
    pub embed_scale: Factor,
    /// Factor on every branch.
    pub residual_scale: Factor,
    /// Factor on the logits.
    pub logit_scale: Factor,
    /// Key of the soft cap of the logits, and what it is where absent.
    pub softcap: Option<(&'static str, f32)>,
    /// The head has a bias.
    pub head_bias: bool,
    /// What each layer is.
    pub layers: Layers,
    /// Layers of full attention.
    pub full: Attention,
    /// Layers of local attention.
    pub local: Attention,
    /// State space layers.
    pub mamba: Option<MambaKeys>,
    /// Dense MLPs.
    pub mlp: Mlp,
    /// Routed experts; `None` is dense.
    pub moe: Option<Moe>,
    /// Layers without experts.
    pub dense_layers: DenseLayers,
    /// Keys that say whether and how many layers in a row share keys and values before norms and rotation.
    pub shared_kv: Option<(&'static str, &'static str)>,
    /// A layer with experts also has a dense MLP in parallel, each between norms of its own (Gemma 4).
    pub parallel_mlp: bool,
    /// Every layer ends in a learned factor, and a second embedding may feed it (Gemma 4).
    pub gemma: bool,
}

/// Tensor names; `{}` is the layer (or, in `experts_apart`, the expert).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub embed: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
    pub layer: &'static str,
    pub attention_norm: &'static str,
    pub attention_post_norm: Option<&'static str>,
    pub attention: &'static str,
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    /// One projection for all three instead.
    pub qkv: Option<&'static str>,
    /// One projection grouped by key head into a delta net.
    pub qkvz: Option<&'static str>,
    pub o: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    /// Delta nets, state spaces, convolutions.
    pub mixer: &'static str,
    pub mlp_norm: &'static str,
    pub mlp_post_norm: Option<&'static str>,
    pub mlp: &'static str,
    pub router: &'static str,
    /// Full tensor name below the layer.
    pub correction: &'static str,
    pub experts: &'static str,
    /// Gate, up, down of the experts.
    pub expert: [&'static str; 3],
    /// Gate, up, down of one expert in files that hold experts apart.
    pub experts_apart: Option<[&'static str; 3]>,
    pub shared: &'static str,
    pub shared_gate: &'static str,
    /// Gate and up in one, and down, of the shared expert.
    pub shared_fused: Option<[&'static str; 2]>,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    /// Gate and up of dense MLPs in one.
    pub gate_up: Option<&'static str>,
}

/// Norms of the residual stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormRule {
    pub kind: NormKind,
    /// Key of epsilon, and what it is where absent.
    pub eps: (&'static str, f32),
    /// Weights are stored less one.
    pub plus_one: bool,
}

/// Embedding table and head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tied {
    /// As `tie_word_embeddings` says; this where it is absent.
    Key(bool),
    /// The same, but a head that is in the files counts, whatever the key says (families whose reference has
    /// a head of its own always).
    UnlessStored(bool),
    Always,
}

/// A constant factor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factor {
    One,
    /// √hidden.
    RootHidden,
    /// √hidden rounded to bf16.
    RootHiddenBf16,
    /// √hidden if this key says so; absent is yes.
    RootHiddenIf(&'static str),
    Key(&'static str),
    /// One over the key's.
    Inverse(&'static str),
}

/// What a layer's mixer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Full,
    Local,
    Delta,
    Mamba,
    Conv,
    /// No mixer: the layer is an MLP.
    Mlp,
    /// No mixer: the layer is experts.
    Moe,
}

/// What each layer is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layers {
    /// All full attention.
    Same,
    /// A list of names at `layer_types`.
    Types,
    /// As `Types`; without a list all full attention.
    TypesIf,
    /// As `Types`; without a list, every n-th is full and the rest local, n from the key or this.
    TypesOr(&'static str, usize),
    /// Every n-th is full and the rest this, n from the key or this.
    Every(&'static str, usize, Kind),
    /// A flag a layer at the first key, 0 is full and 1 local; without a list as `Every` of the second key,
    /// local else.
    EveryOr(&'static str, &'static str, usize),
    /// A letter a layer at this key (or the names of `layers_block_type`); each is one block.
    Pattern(&'static str),
    /// 1 is local, 0 full.
    Flags(&'static str),
    /// Delta nets where this list has the layer's number, counted from one; full attention else.
    DeltaAt(&'static str),
    /// A list of names at `layers_block_type`; without one, attention where the number is the second key's
    /// modulo the first key's, and state spaces else.
    Offset(&'static str, &'static str),
}

/// Keys of state space layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MambaKeys {
    /// Of the number of heads; for Mamba-1 of channels over hidden size.
    pub heads: &'static str,
    pub head_dim: &'static str,
    pub groups: &'static str,
    pub state: &'static str,
    pub kernel: &'static str,
    pub conv_bias: &'static str,
    pub bias: &'static str,
    /// Bounds of the time step where `time_step_limit` is absent.
    pub dt_limit: (f32, f32),
    /// The gated norm works group by group.
    pub norm_by_group: bool,
    /// Mamba-1: of the width of the time step.
    pub rank: Option<&'static str>,
}

/// Dense MLPs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mlp {
    /// Key of the inner width.
    pub width: &'static str,
    pub bias: Bias,
    pub activation: Act,
}

/// Activations.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// As `hidden_act` or `hidden_activation` says; absent is SwiGLU.
    Key,
    GeGlu,
    /// SwiGLU limited by the layer's number in the list at this key; 0 or absent is not.
    Limited(&'static str),
    /// gpt-oss; the limit from this key, 7 where absent.
    Clamped(&'static str),
    Relu2,
}

/// Routed experts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moe {
    /// Key of their number.
    pub experts: &'static str,
    /// Key of the number picked per token.
    pub top_k: &'static str,
    /// Key of an expert's inner width.
    pub width: &'static str,
    /// Key that holds it where that one is absent.
    pub width_or: Option<&'static str>,
    pub score: ScoreRule,
    pub router_bias: bool,
    /// A bias on the choice.
    pub correction: Correction,
    /// `n_group` and `topk_group` limit the choice.
    pub groups: Grouping,
    pub normalise: Normalise,
    /// Key of a factor on the weights; 1 where absent.
    pub scale: Option<&'static str>,
    pub expert_bias: Bias,
    pub activation: Act,
    pub input_gate: bool,
    /// Key of the width of projections around the experts.
    pub latent: Option<&'static str>,
    pub shared: Shared,
}

/// Scores of the router.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ScoreRule {
    Is(Score),
    /// `softmax` or `sigmoid` as this key says; absent is this.
    Key(&'static str, Score),
    /// Phi's sparse mixer; jitter from this key, 0.01 where absent.
    SparseMixer(&'static str),
}

/// A bias on the choice.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Correction {
    Never,
    Always,
    /// As this key says; absent means no.
    Key(&'static str),
}

/// Group-limited choice.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grouping {
    Never,
    /// The sum of a group's two best.
    BestTwo,
    /// The same, with the number of groups at this key.
    BestTwoOf(&'static str),
    /// A group's best, if `topk_method` is `group_limited_greedy`.
    Greedy,
}

/// Whether picked weights are divided by their sum plus this.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Normalise {
    Never,
    Always(f32),
    /// As this key says; absent is this.
    Key(&'static str, bool, f32),
    /// As `Key`, but not for a single expert.
    Several(&'static str, bool, f32),
}

/// Which layers are dense in a family with experts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DenseLayers {
    None,
    /// `mlp_only_layers`, and those whose number + 1 is not a multiple of `decoder_sparse_step`.
    SparseStep,
    /// As many of the first as this key says, and those whose number is not a multiple of `moe_layer_freq`.
    First(&'static str),
    /// Those whose number + 1 is not a multiple of this key's.
    Interval(&'static str),
    /// Those outside start, end and interval of ERNIE.
    Range,
    /// A flag a layer at this key; 1 is experts.
    Flags(&'static str),
    /// All but the numbers listed in the string at this key; without one all but the first.
    Listed(&'static str),
    /// All, if this key is false or absent.
    Unless(&'static str),
    /// All, if this key is 0 or absent.
    Without(&'static str),
    /// All, if there is only one expert; else those whose number plus the second key's is not a multiple of
    /// the first key's.
    Offset(&'static str, &'static str),
}

/// Shared expert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub width: SharedWidth,
    /// Scaled by a sigmoid gate.
    pub gated: bool,
    /// A block in parallel to the experts, not part of theirs.
    pub parallel: bool,
    /// Mixed with the routed ones by the softmax of the projection of this name.
    pub mix: Option<&'static str>,
}

/// Inner width of the shared expert.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SharedWidth {
    /// There is none.
    None,
    /// This key's; 0 or absent is none.
    Key(&'static str),
    /// The product of these keys'; 0 or absent is none.
    Product(&'static str, &'static str),
    /// Unless the first key is false, the product of the second's and the first present one of the last.
    ProductIf(&'static str, &'static str, [&'static str; 2]),
}
