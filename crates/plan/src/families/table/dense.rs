//! Dense models.

use super::super::attention_row::{
    Attention, Bias, HeadDim, Interleaved, QkNorm, RopeDims, RopeOn, RopeRule, Temperature, WindowRule,
};
use super::super::row::{Family, Layers, Mlp, Names, Tied};
use super::{ATTENTION, BASE, BIASED, ERNIE, NAMES, ROPE};

/// Queries grow with the position (Ministral 3).
const MINISTRAL: Attention = Attention {
    temperature: Some(Temperature {
        on: "rope_parameters.llama_4_scaling_beta",
        scale: ("rope_parameters.llama_4_scaling_beta", 0.1),
        period: ("rope_parameters.original_max_position_embeddings", 8192.0),
        shift: 0.0,
    }),
    ..ATTENTION
};

pub(super) const ROWS: &[Family] = &[
    Family {
        name: "llama",
        also: &["mistral", "mistral3", "pixtral"],
        tied: Tied::Key(true),
        layers: Layers::TypesIf,
        full: BIASED,
        local: Attention { window: WindowRule::Sliding("sliding_window"), ..BIASED },
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
        ..BASE
    },
    Family {
        name: "ministral3",
        tied: Tied::Key(true),
        layers: Layers::TypesIf,
        full: MINISTRAL,
        local: Attention { window: WindowRule::Sliding("sliding_window"), ..MINISTRAL },
        ..BASE
    },
    Family { name: "ernie4_5", ..ERNIE },
    Family {
        name: "glm4",
        names: Names {
            attention_post_norm: Some("post_self_attn_layernorm"),
            mlp_post_norm: Some("post_mlp_layernorm"),
            gate_up: Some("gate_up_proj"),
            ..NAMES
        },
        tied: Tied::UnlessStored(false),
        full: Attention {
            qkv_bias: Bias::Key("attention_bias"),
            rope: RopeRule {
                dims: RopeDims::Partial(0.5),
                interleaved: Interleaved::Key("rope_traditional", true),
                ..ROPE
            },
            ..ATTENTION
        },
        ..BASE
    },
    Family {
        name: "hunyuan_v1_dense",
        names: Names { q_norm: "query_layernorm", k_norm: "key_layernorm", ..NAMES },
        full: Attention { qk_norm: QkNorm::HeadIf("use_qk_norm", true), qk_norm_last: true, ..BIASED },
        ..BASE
    },
    Family {
        name: "phi3",
        names: Names { qkv: Some("qkv_proj"), gate_up: Some("gate_up_proj"), ..NAMES },
        full: Attention {
            head_dim: HeadDim::Hidden,
            rope: RopeRule { dims: RopeDims::Partial(1.0), ..ROPE },
            ..ATTENTION
        },
        ..BASE
    },
    Family {
        name: "qwen2",
        also: &["qwen2_vl", "qwen2_5_vl"],
        tied: Tied::Key(true),
        full: Attention { head_dim: HeadDim::Hidden, qkv_bias: Bias::Always, ..ATTENTION },
        ..BASE
    },
    Family {
        name: "qwen3",
        also: &["qwen3_vl"],
        full: Attention { qk_norm: QkNorm::Head, ..ATTENTION },
        ..BASE
    },
    Family {
        name: "seed_oss",
        tied: Tied::Key(true),
        full: Attention {
            qkv_bias: Bias::Key("attention_bias"),
            o_bias: Bias::Key("attention_out_bias"),
            ..ATTENTION
        },
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
        ..BASE
    },
    Family {
        name: "smollm3",
        tied: Tied::Key(true),
        layers: Layers::EveryOr("no_rope_layers", "no_rope_layer_interval", 4),
        full: Attention { rope: RopeRule { on: RopeOn::Never, ..ROPE }, ..BIASED },
        local: BIASED,
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
        ..BASE
    },
];
