//! Plain attention with DeepSeek-V3's kind of router, or near it.

use super::super::attention_row::{
    Attention, Bias, Gate, HeadDim, QkNorm, RopeDims, RopeOn, RopeRule, WindowRule,
};
use super::super::row::{
    Act, Correction, DenseLayers, Factor, Family, Grouping, Layers, Mlp, Moe, Names, NormRule, Normalise,
    ScoreRule, Shared, SharedWidth, Tied,
};
use super::{ATTENTION, BASE, BIASED, BIASED_MOE, ERNIE, MOE, NAMES, ROPE, SHARED};
use crate::{GateKind, Score};

/// Attention with a gate on every value it gives (Trinity).
const GATED: Attention =
    Attention { qk_norm: QkNorm::Head, gate: Gate::Elementwise("gate_proj"), ..ATTENTION };

/// Attention of MiMo-V2.
const MIMO: Attention = Attention {
    v_dim: Some("v_head_dim"),
    v_scale: Some("attention_value_scale"),
    rope: RopeRule { dims: RopeDims::Partial(1.0), ..ROPE },
    sinks: Some("attention_sink_bias"),
    ..ATTENTION
};

/// Attention of Step-3.5.
const STEP: Attention = Attention {
    kv_heads: "num_attention_groups",
    qk_norm: QkNorm::Head,
    rope: RopeRule { dims: RopeDims::Partial(1.0), ..ROPE },
    gate: Gate::PerHead("g_proj", GateKind::Sigmoid, "use_head_wise_attn_gate", true),
    ..ATTENTION
};

pub(super) const ROWS: &[Family] = &[
    Family {
        name: "Klear",
        tied: Tied::UnlessStored(false),
        names: Names { correction: "mlp.expert_bias", experts: "mlp.experts", ..NAMES },
        full: Attention { head_dim: HeadDim::Hidden, qk_norm: QkNorm::Head, ..BIASED },
        moe: Some(Moe {
            experts: "num_experts",
            groups: Grouping::Never,
            normalise: Normalise::Key("norm_topk_prob", false, 0.0),
            scale: None,
            shared: Shared { mix: Some("mlp.coefficient"), ..SHARED },
            ..BIASED_MOE
        }),
        dense_layers: DenseLayers::SparseStep,
        ..BASE
    },
    Family {
        name: "afmoe",
        names: Names {
            attention_post_norm: Some("post_attention_layernorm"),
            mlp_norm: "pre_mlp_layernorm",
            mlp_post_norm: Some("post_mlp_layernorm"),
            router: "mlp.router.gate",
            correction: "mlp.expert_bias",
            experts: "mlp.experts",
            ..NAMES
        },
        embed_scale: Factor::RootHiddenIf("mup_enabled"),
        layers: Layers::Types,
        full: Attention { rope: RopeRule { on: RopeOn::Never, ..ROPE }, ..GATED },
        local: Attention { window: WindowRule::Sliding("sliding_window"), ..GATED },
        moe: Some(Moe {
            experts: "num_experts",
            score: ScoreRule::Key("score_func", Score::Sigmoid),
            normalise: Normalise::Several("route_norm", true, 0.0),
            scale: Some("route_scale"),
            shared: Shared {
                width: SharedWidth::Product("num_shared_experts", "moe_intermediate_size"),
                ..SHARED
            },
            ..BIASED_MOE
        }),
        dense_layers: DenseLayers::First("num_dense_layers"),
        ..BASE
    },
    Family {
        name: "bailing_moe",
        also: &["bailing_moe_v2"],
        names: Names {
            embed: "model.word_embeddings",
            attention: "attention",
            qkv: Some("query_key_value"),
            o: "dense",
            q_norm: "query_layernorm",
            k_norm: "key_layernorm",
            router: "mlp.gate.gate_proj",
            correction: "mlp.gate.expert_bias",
            ..NAMES
        },
        full: Attention {
            head_dim: HeadDim::Hidden,
            qkv_bias: Bias::Key("use_qkv_bias"),
            o_bias: Bias::Key("use_bias"),
            qk_norm: QkNorm::HeadIf("use_qk_norm", false),
            rope: RopeRule { dims: RopeDims::Key("rotary_dim"), ..ROPE },
            ..ATTENTION
        },
        mlp: Mlp { bias: Bias::Key("use_bias"), ..BASE.mlp },
        moe: Some(Moe {
            experts: "num_experts",
            score: ScoreRule::Key("score_function", Score::Softmax),
            correction: Correction::Key("moe_router_enable_expert_bias"),
            normalise: Normalise::Several("norm_topk_prob", false, 1e-20),
            expert_bias: Bias::Key("use_bias"),
            shared: Shared {
                width: SharedWidth::ProductIf(
                    "moe_router_enable_shared_expert",
                    "num_shared_experts",
                    ["moe_shared_expert_intermediate_size", "moe_intermediate_size"],
                ),
                ..SHARED
            },
            ..BIASED_MOE
        }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "ernie4_5_moe",
        moe: Some(Moe {
            experts: "moe_num_experts",
            top_k: "moe_k",
            score: ScoreRule::Key("moe_gate_act", Score::Softmax),
            normalise: Normalise::Always(1e-12),
            expert_bias: Bias::Key("use_bias"),
            shared: Shared {
                width: SharedWidth::Product("moe_num_shared_experts", "moe_intermediate_size"),
                ..SHARED
            },
            ..MOE
        }),
        dense_layers: DenseLayers::Range,
        ..ERNIE
    },
    Family {
        name: "exaone_moe",
        layers: Layers::Types,
        full: Attention {
            qk_norm: QkNorm::Head,
            rope: RopeRule { on: RopeOn::NoLocal, ..ROPE },
            ..ATTENTION
        },
        local: Attention {
            qk_norm: QkNorm::Head,
            window: WindowRule::Sliding("sliding_window"),
            ..ATTENTION
        },
        moe: Some(Moe {
            experts: "num_experts",
            normalise: Normalise::Several("norm_topk_prob", true, 1e-20),
            shared: Shared {
                width: SharedWidth::Product("num_shared_experts", "moe_intermediate_size"),
                ..SHARED
            },
            ..BIASED_MOE
        }),
        dense_layers: DenseLayers::Flags("is_moe_layer"),
        ..BASE
    },
    Family {
        name: "mimo_v2_flash",
        tied: Tied::UnlessStored(false),
        norm: NormRule { eps: ("layernorm_epsilon", 1e-5), ..BASE.norm },
        layers: Layers::Flags("hybrid_layer_pattern"),
        full: Attention { sinks_if: Some("add_full_attention_sink_bias"), ..MIMO },
        local: Attention {
            heads: "swa_num_attention_heads",
            kv_heads: "swa_num_key_value_heads",
            head_dim: HeadDim::Key("swa_head_dim"),
            v_dim: Some("swa_v_head_dim"),
            rope: RopeRule { theta: ("swa_rope_theta", 1e4), ..MIMO.rope },
            window: WindowRule::Sliding("sliding_window_size"),
            sinks_if: Some("add_swa_attention_sink_bias"),
            ..MIMO
        },
        moe: Some(Moe { normalise: Normalise::Several("norm_topk_prob", true, 1e-20), ..BIASED_MOE }),
        dense_layers: DenseLayers::Flags("moe_layer_freq"),
        ..BASE
    },
    Family {
        name: "step3p5",
        tied: Tied::UnlessStored(false),
        names: Names {
            router: "mlp.gate.gate",
            correction: "mlp.gate.router_bias",
            shared: "mlp.share_expert",
            ..NAMES
        },
        norm: NormRule { eps: ("rms_norm_eps", 1e-5), ..BASE.norm },
        layers: Layers::Types,
        full: STEP,
        local: Attention {
            heads: "attention_other_setting.num_attention_heads",
            kv_heads: "attention_other_setting.num_attention_groups",
            rope: RopeRule { scaled: false, ..STEP.rope },
            window: WindowRule::Sliding("sliding_window"),
            ..STEP
        },
        mlp: Mlp { activation: Act::Limited("swiglu_limits_shared"), ..BASE.mlp },
        moe: Some(Moe {
            experts: "moe_num_experts",
            top_k: "moe_top_k",
            groups: Grouping::Never,
            normalise: Normalise::Key("norm_expert_weight", true, 1e-20),
            scale: Some("moe_router_scaling_factor"),
            activation: Act::Limited("swiglu_limits"),
            shared: Shared { width: SharedWidth::Key("share_expert_dim"), ..SHARED },
            ..BIASED_MOE
        }),
        dense_layers: DenseLayers::Listed("moe_layers_enum"),
        ..BASE
    },
];
