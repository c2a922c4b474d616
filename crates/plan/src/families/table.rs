//! The table: one row per family. Each row says how it differs from [`BASE`]; nothing else knows a family's name.
//! Facts follow mlx-lm's modules of the same name.

use super::row::{Bias, DenseLayers, Family, HeadDim, Names, Normalise, QkNorm, RopeRule, Shared, Width};
use crate::Score;

/// Names that most checkpoints share.
const NAMES: Names = Names {
    embed: "model.embed_tokens",
    final_norm: "model.norm",
    head: "lm_head",
    layer: "model.layers.{}",
    attention_norm: "input_layernorm",
    attention: "self_attn",
    q: "q_proj",
    k: "k_proj",
    v: "v_proj",
    o: "o_proj",
    q_norm: "q_norm",
    k_norm: "k_norm",
    mlp_norm: "post_attention_layernorm",
    mlp: "mlp",
    router: "mlp.gate",
    experts: "mlp.switch_mlp",
    experts_apart: None,
    shared: "mlp.shared_expert",
    shared_gate: "mlp.shared_expert_gate",
    gate: "gate_proj",
    up: "up_proj",
    down: "down_proj",
};

/// A dense Llama-like model; rows override what differs.
const BASE: Family = Family {
    name: "",
    names: NAMES,
    head_dim: HeadDim::Config,
    qkv_bias: Bias::Never,
    o_bias: Bias::Never,
    mlp_bias: Bias::Never,
    qk_norm: QkNorm::None,
    rope: RopeRule::Scaled,
    window: None,
    tied: false,
    experts: None,
    top_k: "num_experts_per_tok",
    expert_width: Width("moe_intermediate_size"),
    dense_layers: DenseLayers::None,
    score: Score::Softmax,
    normalise: Normalise::Never,
    shared: Shared::None,
};

/// Every family this build can run, by `model_type`.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        name: "llama",
        qkv_bias: Bias::Key("attention_bias"),
        o_bias: Bias::Key("attention_bias"),
        mlp_bias: Bias::Key("mlp_bias"),
        tied: true,
        ..BASE
    },
    Family {
        name: "mixtral",
        names: Names {
            router: "block_sparse_moe.gate",
            experts: "block_sparse_moe.switch_mlp",
            experts_apart: Some([
                "block_sparse_moe.experts.{}.w1",
                "block_sparse_moe.experts.{}.w3",
                "block_sparse_moe.experts.{}.w2",
            ]),
            ..NAMES
        },
        head_dim: HeadDim::Hidden,
        rope: RopeRule::Plain,
        experts: Some("num_local_experts"),
        expert_width: Width("intermediate_size"),
        score: Score::TopKSoftmax,
        ..BASE
    },
    Family {
        name: "olmoe",
        qkv_bias: Bias::Key("attention_bias"),
        o_bias: Bias::Key("attention_bias"),
        qk_norm: QkNorm::Full,
        tied: true,
        experts: Some("num_experts"),
        expert_width: Width("intermediate_size"),
        normalise: Normalise::Key("norm_topk_prob"),
        ..BASE
    },
    Family {
        name: "qwen2_moe",
        head_dim: HeadDim::Hidden,
        qkv_bias: Bias::Always,
        rope: RopeRule::Plain,
        experts: Some("num_experts"),
        shared: Shared::Gated("shared_expert_intermediate_size"),
        ..BASE
    },
    Family { name: "qwen3", qk_norm: QkNorm::Head, ..BASE },
    Family {
        name: "qwen3_moe",
        qk_norm: QkNorm::Head,
        rope: RopeRule::Plain,
        experts: Some("num_experts"),
        dense_layers: DenseLayers::SparseStep,
        normalise: Normalise::Key("norm_topk_prob"),
        ..BASE
    },
];
