//! The table: one row per family. Each row says how it differs from [`BASE`]; nothing else knows a family's name.
//! Facts follow mlx-lm's modules of the same name.

use super::attention_row::{
    Attention, Bias, Gate, HeadDim, Interleaved, Latent, QkNorm, RopeDims, RopeOn, RopeRule, Scale,
    Temperature, WindowRule,
};
use super::row::{
    Act, Correction, DenseLayers, Factor, Family, Grouping, Kind, Layers, MambaKeys, Mlp, Moe, Names,
    NormRule, Normalise, ScoreRule, Shared, SharedWidth, Tied,
};
use crate::{GateKind, NormKind, Score};

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

/// The same, but `rope_scaling` is ignored, as mlx-lm does for some families.
const PLAIN_ROPE: RopeRule = RopeRule { scaled: false, ..ROPE };

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

/// Attention with a gate on every value it gives (Trinity).
const GATED: Attention =
    Attention { qk_norm: QkNorm::Head, gate: Gate::Elementwise("gate_proj"), ..ATTENTION };

/// Attention of MiMo-V2.
const MIMO: Attention = Attention {
    v_dim: Some("v_head_dim"),
    v_scale: Some("attention_value_scale"),
    rope: RopeRule { dims: RopeDims::Partial(1.0), ..PLAIN_ROPE },
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

/// Attention of Gemma 3.
const GEMMA3: Attention = Attention {
    qk_norm: QkNorm::Head,
    scale: Scale::InverseRoot("query_pre_attn_scalar", 256.0),
    ..ATTENTION
};

/// Attention of Gemma 4.
const GEMMA4: Attention = Attention { qk_norm: QkNorm::Head, v_norm: true, scale: Scale::One, ..ATTENTION };

/// Attention of gpt-oss.
const GPT_OSS: Attention = Attention {
    qkv_bias: Bias::Always,
    o_bias: Bias::Always,
    sinks: Some("sinks"),
    rope: RopeRule { theta: ("rope_theta", 150_000.0), ..ROPE },
    ..ATTENTION
};

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
    shared: Shared { width: SharedWidth::None, gated: false, mix: None },
};

/// Shared experts side by side in one MLP.
const SHARED: Shared = Shared {
    width: SharedWidth::Product("n_shared_experts", "moe_intermediate_size"),
    gated: false,
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

/// Gated delta nets with every fourth layer full attention, a gated shared expert (Qwen3-Next, Qwen3.5).
const QWEN_HYBRID: Family = Family {
    layers: Layers::Every("full_attention_interval", 4, Kind::Delta),
    full: Attention {
        qk_norm: QkNorm::Head,
        gate: Gate::InQuery,
        rope: RopeRule { dims: RopeDims::Partial(0.25), ..ROPE },
        ..BIASED
    },
    names: Names { shared: "mlp.shared_expert", ..NAMES },
    moe: Some(QWEN_HYBRID_MOE),
    dense_layers: DenseLayers::SparseStep,
    ..BASE
};

const QWEN_HYBRID_MOE: Moe = Moe {
    normalise: Normalise::Key("norm_topk_prob", false, 0.0),
    shared: Shared { width: SharedWidth::Key("shared_expert_intermediate_size"), gated: true, mix: None },
    ..MOE
};

/// A dense Llama-like model; rows override what differs.
const BASE: Family = Family {
    name: "",
    also: &[],
    names: NAMES,
    norm: NormRule { kind: NormKind::Rms, eps: ("rms_norm_eps", 1e-6), plus_one: false },
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
    beside: false,
    gemma: false,
};

/// Every family this build can run, by `model_type`.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        name: "Klear",
        names: Names { correction: "mlp.expert_bias", experts: "mlp.experts", ..NAMES },
        full: Attention { head_dim: HeadDim::Hidden, qk_norm: QkNorm::Head, rope: PLAIN_ROPE, ..BIASED },
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
        name: "deepseek",
        full: Attention { head_dim: HeadDim::Hidden, ..BIASED },
        moe: Some(Moe { experts: "n_routed_experts", shared: SHARED, ..MOE }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "deepseek_v2",
        full: Attention { latent: Some(Latent { absorbed: false, eps: Some(1e-6) }), ..LATENT },
        moe: Some(Moe {
            experts: "n_routed_experts",
            groups: Grouping::Greedy,
            scale: Some("routed_scaling_factor"),
            shared: SHARED,
            ..MOE
        }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "deepseek_v3",
        also: &["kimi_k2", "joyai_llm_flash"],
        full: LATENT,
        moe: Some(BIASED_MOE),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "dots1",
        names: Names { experts: "mlp.experts", ..NAMES },
        full: Attention { qk_norm: QkNorm::Head, ..ATTENTION },
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
        moe: Some(BIASED_MOE),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "ernie4_5_moe",
        full: Attention {
            qkv_bias: Bias::Key("use_bias"),
            o_bias: Bias::Key("use_bias"),
            rope: RopeRule { interleaved: Interleaved::Yes, ..PLAIN_ROPE },
            ..ATTENTION
        },
        mlp: Mlp { bias: Bias::Key("use_bias"), ..BASE.mlp },
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
        ..BASE
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
        name: "gemma3_text",
        names: Names {
            attention_post_norm: Some("post_attention_layernorm"),
            mlp_norm: "pre_feedforward_layernorm",
            mlp_post_norm: Some("post_feedforward_layernorm"),
            ..NAMES
        },
        norm: NormRule { plus_one: true, ..BASE.norm },
        tied: Tied::Key(true),
        embed_scale: Factor::RootHiddenBf16,
        layers: Layers::TypesOr("sliding_window_pattern", 6),
        full: Attention { rope: RopeRule { theta: ("rope_theta", 1e6), ..ROPE }, ..GEMMA3 },
        local: Attention {
            rope: RopeRule { theta: ("rope_local_base_freq", 1e4), ..PLAIN_ROPE },
            window: WindowRule::Sliding("sliding_window"),
            ..GEMMA3
        },
        mlp: Mlp { activation: Act::GeGlu, ..BASE.mlp },
        ..BASE
    },
    Family {
        name: "gemma4",
        also: &["gemma4_unified"],
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
        beside: true,
        gemma: true,
        ..BASE
    },
    Family {
        name: "glm4_moe",
        also: &["solar_open"],
        full: Attention {
            qkv_bias: Bias::Key("attention_bias"),
            qk_norm: QkNorm::HeadIf("use_qk_norm", false),
            rope: RopeRule { dims: RopeDims::Partial(0.5), ..PLAIN_ROPE },
            ..ATTENTION
        },
        moe: Some(BIASED_MOE),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "glm4_moe_lite",
        norm: NormRule { eps: ("rms_norm_eps", 1e-5), ..BASE.norm },
        full: Attention { latent: Some(Latent { absorbed: true, eps: None }), ..LATENT },
        moe: Some(Moe { normalise: Normalise::Several("norm_topk_prob", true, 1e-20), ..BIASED_MOE }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "gpt_oss",
        names: Names { router: "mlp.router", experts: "mlp.experts", ..NAMES },
        layers: Layers::TypesOr("layer_period", 2),
        full: GPT_OSS,
        local: Attention { window: WindowRule::Sliding("sliding_window"), ..GPT_OSS },
        moe: Some(Moe {
            experts: "num_local_experts",
            width: "intermediate_size",
            score: ScoreRule::Is(Score::TopKSoftmax),
            router_bias: true,
            expert_bias: Bias::Always,
            activation: Act::Clamped("swiglu_limit"),
            ..MOE
        }),
        ..BASE
    },
    Family {
        name: "granitemoe",
        names: Names { router: "block_sparse_moe.router.layer", experts_apart: None, ..SPARSE_BLOCK },
        tied: Tied::Key(true),
        embed_scale: Factor::Key("embedding_multiplier"),
        residual_scale: Factor::Key("residual_multiplier"),
        logit_scale: Factor::Inverse("logits_scaling"),
        full: Attention { head_dim: HeadDim::Hidden, scale: Scale::Key("attention_multiplier"), ..BIASED },
        moe: Some(Moe {
            experts: "num_local_experts",
            width: "intermediate_size",
            score: ScoreRule::Is(Score::TopKSoftmax),
            ..MOE
        }),
        ..BASE
    },
    Family {
        name: "granitemoehybrid",
        names: Names {
            mixer: "mamba",
            router: "block_sparse_moe.router.layer",
            experts_apart: None,
            shared: "shared_mlp",
            shared_fused: Some(["input_linear", "output_linear"]),
            ..SPARSE_BLOCK
        },
        tied: Tied::Key(true),
        embed_scale: Factor::Key("embedding_multiplier"),
        residual_scale: Factor::Key("residual_multiplier"),
        logit_scale: Factor::Inverse("logits_scaling"),
        layers: Layers::Types,
        full: Attention {
            head_dim: HeadDim::Hidden,
            scale: Scale::Key("attention_multiplier"),
            rope: RopeRule { on: RopeOn::Unless("position_embedding_type", "nope"), ..PLAIN_ROPE },
            ..BIASED
        },
        mamba: Some(MambaKeys {
            heads: "mamba_n_heads",
            head_dim: "mamba_d_head",
            groups: "mamba_n_groups",
            state: "mamba_d_state",
            kernel: "mamba_d_conv",
            conv_bias: "mamba_conv_bias",
            bias: "mamba_proj_bias",
            dt_limit: (0.001, 100.0),
            norm_by_group: false,
        }),
        moe: Some(Moe {
            experts: "num_local_experts",
            width: "intermediate_size",
            score: ScoreRule::Is(Score::TopKSoftmax),
            shared: Shared { width: SharedWidth::Key("shared_intermediate_size"), gated: false, mix: None },
            ..MOE
        }),
        dense_layers: DenseLayers::Without("num_local_experts"),
        ..BASE
    },
    Family {
        name: "lfm2_moe",
        names: Names {
            final_norm: "model.embedding_norm",
            attention_norm: "operator_norm",
            mlp_norm: "ffn_norm",
            q_norm: "q_layernorm",
            k_norm: "k_layernorm",
            o: "out_proj",
            mixer: "conv",
            mlp: "feed_forward",
            router: "feed_forward.gate",
            correction: "feed_forward.expert_bias",
            experts: "feed_forward.switch_mlp",
            ..NAMES
        },
        norm: NormRule { eps: ("norm_eps", 1e-5), ..BASE.norm },
        tied: Tied::Always,
        layers: Layers::Types,
        full: Attention {
            head_dim: HeadDim::Hidden,
            qk_norm: QkNorm::Head,
            rope: RopeRule { theta: ("rope_theta", 1e6), ..PLAIN_ROPE },
            ..ATTENTION
        },
        moe: Some(Moe {
            score: ScoreRule::Is(Score::Sigmoid),
            correction: Correction::Key("use_expert_bias"),
            normalise: Normalise::Key("norm_topk_prob", false, 1e-6),
            scale: Some("routed_scaling_factor"),
            ..MOE
        }),
        dense_layers: DenseLayers::First("num_dense_layers"),
        ..BASE
    },
    Family {
        name: "llama",
        also: &["mistral"],
        tied: Tied::Key(true),
        full: BIASED,
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
        ..BASE
    },
    Family {
        name: "llama4",
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
            shared: Shared { width: SharedWidth::Key("intermediate_size"), gated: false, mix: None },
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
        name: "mimo_v2_flash",
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
        name: "minimax",
        also: &["minimax_m2"],
        names: SPARSE_BLOCK,
        full: Attention {
            qk_norm: QkNorm::FullIf("use_qk_norm"),
            rope: RopeRule { dims: RopeDims::Key("rotary_dim"), ..PLAIN_ROPE },
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
        name: "mistral4",
        full: Attention {
            rope: RopeRule { interleaved: Interleaved::Key("rope_interleave", true), ..ROPE },
            temperature: Some(Temperature {
                on: "rope_parameters.llama_4_scaling_beta",
                scale: ("rope_parameters.llama_4_scaling_beta", 0.1),
                period: ("rope_parameters.original_max_position_embeddings", 8192.0),
                shift: 0.0,
            }),
            ..LATENT
        },
        moe: Some(Moe {
            score: ScoreRule::Is(Score::Softmax),
            correction: Correction::Never,
            normalise: Normalise::Key("norm_topk_prob", false, 1e-20),
            ..BIASED_MOE
        }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "mixtral",
        names: SPARSE_BLOCK,
        full: Attention { head_dim: HeadDim::Hidden, rope: PLAIN_ROPE, ..ATTENTION },
        moe: Some(Moe {
            experts: "num_local_experts",
            width: "intermediate_size",
            score: ScoreRule::Is(Score::TopKSoftmax),
            ..MOE
        }),
        ..BASE
    },
    Family {
        name: "nemotron_h",
        names: Names {
            embed: "backbone.embeddings",
            final_norm: "backbone.norm_f",
            layer: "backbone.layers.{}",
            attention_norm: "norm",
            attention: "mixer",
            mixer: "mixer",
            mlp: "mixer",
            router: "mixer.gate",
            correction: "mixer.gate.e_score_correction_bias",
            experts: "mixer.switch_mlp",
            expert: ["", "fc1", "fc2"],
            shared: "mixer.shared_experts",
            ..NAMES
        },
        norm: NormRule { eps: ("layer_norm_epsilon", 1e-5), ..BASE.norm },
        layers: Layers::Pattern("hybrid_override_pattern"),
        full: Attention { rope: RopeRule { on: RopeOn::Never, ..ROPE }, ..BIASED },
        mamba: Some(MambaKeys {
            heads: "mamba_num_heads",
            head_dim: "mamba_head_dim",
            groups: "n_groups",
            state: "ssm_state_size",
            kernel: "conv_kernel",
            conv_bias: "use_conv_bias",
            bias: "mamba_proj_bias",
            dt_limit: (0.0, f32::MAX),
            norm_by_group: true,
        }),
        mlp: Mlp { bias: Bias::Key("mlp_bias"), activation: Act::Relu2, ..BASE.mlp },
        moe: Some(Moe {
            normalise: Normalise::Several("norm_topk_prob", false, 1e-20),
            activation: Act::Relu2,
            latent: Some("moe_latent_size"),
            shared: Shared { width: SharedWidth::Key("moe_shared_expert_intermediate_size"), ..SHARED },
            ..BIASED_MOE
        }),
        ..BASE
    },
    Family {
        name: "olmoe",
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
        name: "phimoe",
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
    Family {
        name: "qwen2",
        tied: Tied::Key(true),
        full: Attention { head_dim: HeadDim::Hidden, qkv_bias: Bias::Always, ..ATTENTION },
        ..BASE
    },
    Family {
        name: "qwen2_moe",
        names: Names { shared: "mlp.shared_expert", ..NAMES },
        full: Attention { head_dim: HeadDim::Hidden, qkv_bias: Bias::Always, rope: PLAIN_ROPE, ..ATTENTION },
        moe: Some(Moe {
            shared: Shared {
                width: SharedWidth::Key("shared_expert_intermediate_size"),
                gated: true,
                mix: None,
            },
            ..MOE
        }),
        ..BASE
    },
    Family { name: "qwen3", full: Attention { qk_norm: QkNorm::Head, ..ATTENTION }, ..BASE },
    Family {
        name: "qwen3_5",
        also: &["qwen3_5_moe"],
        moe: Some(Moe { normalise: Normalise::Key("norm_topk_prob", true, 0.0), ..QWEN_HYBRID_MOE }),
        ..QWEN_HYBRID
    },
    Family {
        name: "qwen3_moe",
        also: &["qwen3_vl_moe"],
        full: Attention { qk_norm: QkNorm::Head, rope: PLAIN_ROPE, ..ATTENTION },
        moe: Some(Moe { normalise: Normalise::Key("norm_topk_prob", false, 0.0), ..MOE }),
        dense_layers: DenseLayers::SparseStep,
        ..BASE
    },
    Family {
        name: "qwen3_next",
        names: Names { qkvz: Some("in_proj_qkvz"), ..QWEN_HYBRID.names },
        ..QWEN_HYBRID
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
    Family {
        name: "step3p5",
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
