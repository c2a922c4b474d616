//! Gemma.

use super::super::attention_row::{Attention, HeadDim, QkNorm, RopeRule, Scale, WindowRule};
use super::super::row::{
    Act, DenseLayers, Factor, Family, Layers, Mlp, Moe, Names, NormRule, ScoreRule, Tied,
};
use super::{ATTENTION, BASE, MOE, NAMES, ROPE};
use crate::Score;

/// Attention of Gemma 3.
const GEMMA3: Attention = Attention {
    qk_norm: QkNorm::Head,
    scale: Scale::InverseRoot("query_pre_attn_scalar", 256.0),
    ..ATTENTION
};

/// Attention of Gemma 4.
const GEMMA4: Attention = Attention { qk_norm: QkNorm::Head, v_norm: true, scale: Scale::One, ..ATTENTION };

/// What mlx-lm's `gemma3_text` and `gemma3` take for keys that a config leaves out: the published ones of
/// 4B, 12B and 27B name little more than their sizes.
const GEMMA3_USUAL: [&str; 2] = [
    r#"{"hidden_size": 1152, "num_hidden_layers": 26, "intermediate_size": 6912, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144, "sliding_window": 512}"#,
    r#"{"hidden_size": 1152, "num_hidden_layers": 26, "intermediate_size": 6912, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "sliding_window": 512}"#,
];

/// What mlx-lm's `gemma4_text` takes where there are no `rope_parameters`.
const GEMMA4_USUAL: &str = r#"{"rope_parameters": {
    "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    "sliding_attention": {"partial_rotary_factor": 1.0, "rope_theta": 10000.0, "rope_type": "default"}}}"#;

pub(super) const ROWS: &[Family] = &[
    Family {
        name: "gemma3_text",
        defaults: GEMMA3_USUAL,
        names: Names {
            attention_post_norm: Some("post_attention_layernorm"),
            mlp_norm: "pre_feedforward_layernorm",
            mlp_post_norm: Some("post_feedforward_layernorm"),
            ..NAMES
        },
        norm: NormRule { plus_one: true, ..BASE.norm },
        tied: Tied::UnlessStored(true),
        embed_scale: Factor::RootHiddenBf16,
        layers: Layers::TypesOr("sliding_window_pattern", 6),
        full: Attention { rope: RopeRule { theta: ("rope_theta", 1e6), ..ROPE }, ..GEMMA3 },
        local: Attention {
            rope: RopeRule { theta: ("rope_local_base_freq", 1e4), scaled: false, ..ROPE },
            window: WindowRule::Sliding("sliding_window"),
            ..GEMMA3
        },
        mlp: Mlp { activation: Act::GeGlu, ..BASE.mlp },
        ..BASE
    },
    Family {
        name: "gemma4",
        also: &["gemma4_unified"],
        defaults: [GEMMA4_USUAL; 2],
        names: Names {
            attention_post_norm: Some("post_attention_layernorm"),
            mlp_norm: "pre_feedforward_layernorm",
            mlp_post_norm: Some("post_feedforward_layernorm"),
            router: "router.proj",
            experts: "experts.switch_glu",
            ..NAMES
        },
        tied: Tied::Key(true),
        embed_scale: Factor::RootHidden,
        softcap: Some(("final_logit_softcapping", 30.0)),
        layers: Layers::TypesOr("sliding_window_pattern", 5),
        full: Attention {
            head_dim: HeadDim::Key("global_head_dim"),
            kv_heads: "num_global_key_value_heads",
            values_are_keys: Some("attention_k_eq_v"),
            ..GEMMA4
        },
        local: Attention { window: WindowRule::Sliding("sliding_window"), ..GEMMA4 },
        mlp: Mlp { activation: Act::GeGlu, ..BASE.mlp },
        moe: Some(Moe {
            top_k: "top_k_experts",
            score: ScoreRule::Is(Score::TopKSoftmax),
            activation: Act::GeGlu,
            ..MOE
        }),
        dense_layers: DenseLayers::Unless("enable_moe_block"),
        parallel_mlp: true,
        gemma: true,
        ..BASE
    },
];
