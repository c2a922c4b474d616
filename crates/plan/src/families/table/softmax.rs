//! Mixtral and others of plain attention; the router differs.

use super::super::attention_row::{
    Attention, Bias, HeadDim, Interleaved, QkNorm, RopeDims, RopeOn, RopeRule, Temperature, WindowRule,
};
use super::super::row::{
    Act, Correction, DenseLayers, Family, Kind, Layers, Mlp, Moe, Names, NormRule, Normalise, ScoreRule,
    Shared, SharedWidth, Tied,
};
use super::{APART, ATTENTION, BASE, BIASED, LOCAL_MOE, MOE, NAMES, ROPE, SHARED, SPARSE_BLOCK};
use crate::{NormKind, Score};

/// Attention of gpt-oss.
const GPT_OSS: Attention = Attention {
    qkv_bias: Bias::Always,
    o_bias: Bias::Always,
    sinks: Some("sinks"),
    rope: RopeRule { theta: ("rope_theta", 150_000.0), ..ROPE },
    ..ATTENTION
};

pub(super) const ROWS: &[Family] = &[
    Family {
        name: "gpt_oss",
        tied: Tied::UnlessStored(false),
        names: Names { router: "mlp.router", experts: "mlp.experts", ..NAMES },
        layers: Layers::TypesOr("layer_period", 2),
        full: GPT_OSS,
        local: Attention { window: WindowRule::Sliding("sliding_window"), ..GPT_OSS },
        moe: Some(Moe {
            router_bias: true,
            expert_bias: Bias::Always,
            activation: Act::Clamped("swiglu_limit"),
            ..LOCAL_MOE
        }),
        ..BASE
    },
    Family {
        name: "hunyuan",
        names: Names {
            q_norm: "query_layernorm",
            k_norm: "key_layernorm",
            router: "mlp.gate.wg",
            shared: "mlp.shared_mlp",
            ..NAMES
        },
        tied: Tied::Always,
        full: Attention {
            head_dim: HeadDim::Hidden,
            qk_norm: QkNorm::HeadIf("use_qk_norm", false),
            qk_norm_last: true,
            ..BIASED
        },
        moe: Some(Moe {
            top_k: "moe_topk",
            width_or: Some("intermediate_size"),
            shared: Shared {
                width: SharedWidth::ProductIf(
                    "use_mixed_mlp_moe",
                    "num_shared_expert",
                    ["intermediate_size"; 2],
                ),
                ..SHARED
            },
            ..MOE
        }),
        dense_layers: DenseLayers::Offset("", ""),
        shared_kv: Some(("use_cla", "cla_share_factor")),
        ..BASE
    },
    Family {
        name: "llama4",
        tied: Tied::UnlessStored(false),
        names: Names {
            mlp: "feed_forward",
            router: "feed_forward.router",
            experts: "feed_forward.experts",
            shared: "feed_forward.shared_expert",
            ..NAMES
        },
        layers: Layers::Every("no_rope_layer_interval", 4, Kind::Local),
        full: Attention {
            rope: RopeRule { on: RopeOn::Never, ..ROPE },
            temperature: Some(Temperature {
                on: "attn_temperature_tuning",
                scale: ("attn_scale", 0.1),
                period: ("floor_scale", 8192.0),
                shift: 1.0,
            }),
            ..BIASED
        },
        local: Attention {
            qk_norm: QkNorm::PlainIf("use_qk_norm"),
            qk_norm_last: true,
            rope: RopeRule { interleaved: Interleaved::Yes, ..ROPE },
            window: WindowRule::Chunk("attention_chunk_size"),
            ..BIASED
        },
        mlp: Mlp { width: "intermediate_size_mlp", ..BASE.mlp },
        moe: Some(Moe {
            experts: "num_local_experts",
            width: "intermediate_size",
            score: ScoreRule::Is(Score::Sigmoid),
            input_gate: true,
            shared: Shared {
                width: SharedWidth::Key("intermediate_size"),
                gated: false,
                parallel: false,
                mix: None,
            },
            ..MOE
        }),
        dense_layers: DenseLayers::Interval("interleave_moe_layer_step"),
        ..BASE
    },
    Family {
        name: "mellum",
        layers: Layers::Types,
        full: Attention { qk_norm: QkNorm::Head, ..ATTENTION },
        local: Attention {
            qk_norm: QkNorm::Head,
            window: WindowRule::Sliding("sliding_window"),
            ..ATTENTION
        },
        moe: Some(Moe { normalise: Normalise::Key("norm_topk_prob", false, 0.0), ..MOE }),
        ..BASE
    },
    Family {
        name: "minimax",
        also: &["minimax_m2"],
        names: SPARSE_BLOCK,
        full: Attention {
            qk_norm: QkNorm::FullIf("use_qk_norm"),
            rope: RopeRule { dims: RopeDims::Key("rotary_dim"), ..ROPE },
            ..ATTENTION
        },
        moe: Some(Moe {
            experts: "num_local_experts",
            width: "intermediate_size",
            score: ScoreRule::Is(Score::Sigmoid),
            correction: Correction::Always,
            normalise: Normalise::Always(1e-20),
            ..MOE
        }),
        ..BASE
    },
    Family {
        name: "mixtral",
        names: SPARSE_BLOCK,
        full: Attention { head_dim: HeadDim::Hidden, ..ATTENTION },
        moe: Some(LOCAL_MOE),
        ..BASE
    },
    Family {
        name: "olmoe",
        names: APART,
        tied: Tied::Key(true),
        full: Attention { qk_norm: QkNorm::Full, ..BIASED },
        moe: Some(Moe {
            width: "intermediate_size",
            normalise: Normalise::Key("norm_topk_prob", false, 0.0),
            ..MOE
        }),
        ..BASE
    },
    Family {
        name: "phimoe",
        tied: Tied::UnlessStored(false),
        names: SPARSE_BLOCK,
        norm: NormRule { kind: NormKind::Layer, ..BASE.norm },
        head_bias: true,
        full: Attention {
            head_dim: HeadDim::Hidden,
            qkv_bias: Bias::Always,
            o_bias: Bias::Always,
            ..ATTENTION
        },
        moe: Some(Moe {
            experts: "num_local_experts",
            width: "intermediate_size",
            score: ScoreRule::SparseMixer("router_jitter_noise"),
            ..MOE
        }),
        ..BASE
    },
];
