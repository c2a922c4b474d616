//! The columns of the family table that describe a kind of attention layer.

use crate::GateKind;

/// One kind of attention layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    /// Key of the number of heads.
    pub heads: &'static str,
    /// Key of the number of key/value heads.
    pub kv_heads: &'static str,
    /// Width of a head.
    pub head_dim: HeadDim,
    /// Key of the width of a value head; the head's without.
    pub v_dim: Option<&'static str>,
    /// Key that says whether values are keys.
    pub values_are_keys: Option<&'static str>,
    /// Biases of the query, key and value projections.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub o_bias: Bias,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// They come after the rotation.
    pub qk_norm_last: bool,
    /// Values are normalised, without a weight.
    pub v_norm: bool,
    /// Key of a factor on the values.
    pub v_scale: Option<&'static str>,
    /// Rotary embedding.
    pub rope: RopeRule,
    /// Queries grow with the position.
    pub temperature: Option<Temperature>,
    /// Factor on q·k.
    pub scale: Scale,
    /// Keys seen.
    pub window: WindowRule,
    /// Name of the sink logits.
    pub sinks: Option<&'static str>,
    /// Key that says whether there are any; yes without.
    pub sinks_if: Option<&'static str>,
    /// Gate on the result.
    pub gate: Gate,
    /// Latent attention instead.
    pub latent: Option<Latent>,
}

/// Where a head's width comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeadDim {
    /// This key, or hidden / heads where absent.
    Key(&'static str),
    /// hidden / heads, whatever the config says.
    Hidden,
}

/// Whether a projection has a bias.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bias {
    Never,
    Always,
    /// As this key says; absent means no.
    Key(&'static str),
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QkNorm {
    None,
    Head,
    Full,
    /// Per head, if this key says so; absent is this.
    HeadIf(&'static str, bool),
    /// Full width, if this key says so; absent is yes.
    FullIf(&'static str),
    /// Per head, without weight, epsilon 1e-6, if this key says so; absent means no.
    PlainIf(&'static str),
}

/// Rotary embedding. Parameters are looked for at the top level and in `rope_parameters`, there also under
/// the name of the kind of layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeRule {
    pub on: RopeOn,
    /// Key of the base, and what it is where absent.
    pub theta: (&'static str, f64),
    pub dims: RopeDims,
    pub interleaved: Interleaved,
    /// Whether `rope_scaling` counts: it does not in local layers of some families. mlx-lm ignores it in
    /// more, where transformers, vLLM and llama.cpp do not.
    pub scaled: bool,
}

/// Whether there is a rotary embedding.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RopeOn {
    Always,
    Never,
    /// Unless this key holds this.
    Unless(&'static str, &'static str),
    /// Only where no layer is local.
    NoLocal,
}

/// Part of a head that turns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RopeDims {
    All,
    /// This share where `partial_rotary_factor` is absent.
    Partial(f32),
    /// The number that this key holds; without the key as `Partial(1.0)`.
    Key(&'static str),
}

/// Pairs (2i, 2i+1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interleaved {
    No,
    Yes,
    /// As this key says; absent is this.
    Key(&'static str, bool),
}

/// Queries that grow with the position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temperature {
    /// Key that says whether they do; absent is yes, unless it is the key of the factor.
    pub on: &'static str,
    /// Key of the factor on the logarithm, and what it is where absent.
    pub scale: (&'static str, f32),
    /// Key of the positions per step, and what they are where absent.
    pub period: (&'static str, f32),
    /// Added to the position.
    pub shift: f32,
}

/// Factor on q·k.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale {
    /// 1 / √head_dim.
    Root,
    One,
    Key(&'static str),
    /// One over the root of this key's, and what that is where absent.
    InverseRoot(&'static str, f32),
}

/// Keys seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WindowRule {
    All,
    /// Those nearer than this key says, if it is there.
    Sliding(&'static str),
    /// Those of the same chunk; this key is its length in positions.
    Chunk(&'static str),
}

/// Gate on what attention gives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gate {
    None,
    /// In the query projection.
    InQuery,
    /// Name of an elementwise projection.
    Elementwise(&'static str),
    /// Name of a projection to a number per head, and key that says whether it is there; absent is this.
    PerHead(&'static str, GateKind, &'static str, bool),
}

/// Latent attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latent {
    /// Queries and results are moved into the latent's space, which is cached.
    pub absorbed: bool,
    /// Epsilon of the inner norms; the model's without.
    pub eps: Option<f32>,
}
