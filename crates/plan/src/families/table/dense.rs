//! Dense models.

use super::super::attention_row::{
    Attention, Bias, HeadDim, QkNorm, RopeDims, RopeOn, RopeRule, Temperature, WindowRule,
};
use super::super::row::{Family, Layers, Mlp, Names, Tied};
use super::{ATTENTION, BASE, BIASED, NAMES, ROPE};

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
        name: "smollm3",
        tied: Tied::Key(true),
        layers: Layers::EveryOr("no_rope_layers", "no_rope_layer_interval", 4),
        full: Attention { rope: RopeRule { on: RopeOn::Never, ..ROPE }, ..BIASED },
        local: BIASED,
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
        ..BASE
    },
];
