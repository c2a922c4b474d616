//! The table: one row per family, by kin. Each row says how it differs from [`BASE`]; nothing else knows a
//! family's name. Facts follow mlx-lm's modules of the same name.

mod deepseek;
mod dense;
mod gemma;
mod hybrid;
mod qwen;
mod sigmoid;
mod softmax;

use super::attention_row::{
    Attention, Bias, Gate, HeadDim, Interleaved, Latent, QkNorm, RopeDims, RopeOn, RopeRule, Scale,
    WindowRule,
};
use super::row::{
    Act, Correction, DenseLayers, Factor, Family, Grouping, Layers, Mlp, Moe, Names, NormRule, Normalise,
    ScoreRule, Shared, SharedWidth, Tied,
};
use crate::{NormKind, Score};

/// Names that most checkpoints share.
const NAMES: Names = Names {
    embed: "model.embed_tokens",
    final_norm: "model.norm",
    head: "lm_head",
    layer: "model.layers.{}",
    attention_norm: "input_layernorm",
    attention_post_norm: None,
    attention: "self_attn",
    q: "q_proj",
    k: "k_proj",
    v: "v_proj",
    qkv: None,
    qkvz: None,
    o: "o_proj",
    q_norm: "q_norm",
    k_norm: "k_norm",
    mixer: "linear_attn",
    mlp_norm: "post_attention_layernorm",
    mlp_post_norm: None,
    mlp: "mlp",
    router: "mlp.gate",
    correction: "mlp.gate.e_score_correction_bias",
    experts: "mlp.switch_mlp",
    expert: ["gate_proj", "up_proj", "down_proj"],
    experts_apart: None,
    shared: "mlp.shared_experts",
    shared_gate: "mlp.shared_expert_gate",
    shared_fused: None,
    gate: "gate_proj",
    up: "up_proj",
    down: "down_proj",
    gate_up: None,
};

/// The same, where files with experts one by one differ in nothing else: the original ones can be read too.
const APART: Names = Names {
    experts_apart: Some(["mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj"]),
    ..NAMES
};

/// Names of Mixtral's blocks, which others took over.
const SPARSE_BLOCK: Names = Names {
    router: "block_sparse_moe.gate",
    correction: "block_sparse_moe.e_score_correction_bias",
    experts: "block_sparse_moe.switch_mlp",
    experts_apart: Some([
        "block_sparse_moe.experts.{}.w1",
        "block_sparse_moe.experts.{}.w3",
        "block_sparse_moe.experts.{}.w2",
    ]),
    ..NAMES
};

/// Rotation of whole heads; `rope_scaling` counts.
const ROPE: RopeRule = RopeRule {
    on: RopeOn::Always,
    theta: ("rope_theta", 10_000.0),
    dims: RopeDims::All,
    interleaved: Interleaved::No,
    scaled: true,
};

/// Grouped queries, no biases, no norms.
const ATTENTION: Attention = Attention {
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: HeadDim::Key("head_dim"),
    v_dim: None,
    values_are_keys: None,
    qkv_bias: Bias::Never,
    o_bias: Bias::Never,
    qk_norm: QkNorm::None,
    qk_norm_last: false,
    v_norm: false,
    v_scale: None,
    rope: ROPE,
    temperature: None,
    scale: Scale::Root,
    window: WindowRule::All,
    sinks: None,
    sinks_if: None,
    gate: Gate::None,
    latent: None,
};

/// Biases as `attention_bias` says.
const BIASED: Attention =
    Attention { qkv_bias: Bias::Key("attention_bias"), o_bias: Bias::Key("attention_bias"), ..ATTENTION };

/// Latent attention of DeepSeek-V3.
const LATENT: Attention = Attention {
    rope: RopeRule { interleaved: Interleaved::Yes, ..ROPE },
    latent: Some(Latent { absorbed: true, eps: Some(1e-6) }),
    ..ATTENTION
};

/// Softmax over all experts, no shared one.
const MOE: Moe = Moe {
    experts: "num_experts",
    top_k: "num_experts_per_tok",
    width: "moe_intermediate_size",
    width_or: None,
    score: ScoreRule::Is(Score::Softmax),
    router_bias: false,
    correction: Correction::Never,
    groups: Grouping::Never,
    normalise: Normalise::Never,
    scale: None,
    expert_bias: Bias::Never,
    activation: Act::Key,
    input_gate: false,
    latent: None,
    shared: Shared { width: SharedWidth::None, gated: false, parallel: false, mix: None },
};

/// Mixtral's: softmax over the picked, as wide as dense MLPs elsewhere.
const LOCAL_MOE: Moe = Moe {
    experts: "num_local_experts",
    width: "intermediate_size",
    score: ScoreRule::Is(Score::TopKSoftmax),
    ..MOE
};

/// Shared experts joined into one MLP.
const SHARED: Shared = Shared {
    width: SharedWidth::Product("n_shared_experts", "moe_intermediate_size"),
    gated: false,
    parallel: false,
    mix: None,
};

/// Routing of DeepSeek-V3: sigmoid with a bias on the choice, groups, one shared MLP.
const BIASED_MOE: Moe = Moe {
    experts: "n_routed_experts",
    score: ScoreRule::Is(Score::Sigmoid),
    correction: Correction::Always,
    groups: Grouping::BestTwo,
    normalise: Normalise::Several("norm_topk_prob", true, 0.0),
    scale: Some("routed_scaling_factor"),
    shared: SHARED,
    ..MOE
};

/// A dense Llama-like model; rows override what differs.
const BASE: Family = Family {
    name: "",
    also: &[],
    names: NAMES,
    norm: NormRule { kind: NormKind::Rms, eps: ("rms_norm_eps", 1e-6), plus_one: false },
    defaults: ["{}"; 2],
    tied: Tied::Key(false),
    embed_scale: Factor::One,
    residual_scale: Factor::One,
    logit_scale: Factor::One,
    softcap: None,
    head_bias: false,
    layers: Layers::Same,
    full: ATTENTION,
    local: ATTENTION,
    mamba: None,
    mlp: Mlp { width: "intermediate_size", bias: Bias::Never, activation: Act::Key },
    moe: None,
    dense_layers: DenseLayers::None,
    shared_kv: None,
    parallel_mlp: false,
    gemma: false,
};

/// ERNIE 4.5: biases as one key says, neighbouring pairs turn.
const ERNIE: Family = Family {
    full: Attention {
        qkv_bias: Bias::Key("use_bias"),
        o_bias: Bias::Key("use_bias"),
        rope: RopeRule { interleaved: Interleaved::Yes, ..ROPE },
        ..ATTENTION
    },
    mlp: Mlp { bias: Bias::Key("use_bias"), ..BASE.mlp },
    ..BASE
};

/// Every family this build can run, by `model_type`.
pub(crate) fn rows() -> impl Iterator<Item = &'static Family> {
    [dense::ROWS, deepseek::ROWS, gemma::ROWS, hybrid::ROWS, qwen::ROWS, sigmoid::ROWS, softmax::ROWS]
        .into_iter()
        .flatten()
}
