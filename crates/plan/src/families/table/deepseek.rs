//! DeepSeek and what took over its experts or its latent attention.

use super::super::attention_row::{
    Attention, Bias, HeadDim, Interleaved, Latent, QkNorm, RopeDims, RopeOn, RopeRule, Temperature,
};
use super::super::row::{
    Correction, DenseLayers, Family, Grouping, Layers, Mlp, Moe, Names, NormRule, Normalise, ScoreRule,
    Shared, SharedWidth, Tied,
};
use super::{APART, ATTENTION, BASE, BIASED, BIASED_MOE, LATENT, MOE, NAMES, ROPE, SHARED};
use crate::Score;

pub(super) const ROWS: &[Family] = &[
    Family {
        name: "deepseek",
        tied: Tied::UnlessStored(false),
        names: APART,
        full: Attention { head_dim: HeadDim::Hidden, ..BIASED },
        moe: Some(Moe { experts: "n_routed_experts", shared: SHARED, ..MOE }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "deepseek_v2",
        tied: Tied::UnlessStored(false),
        names: APART,
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
        tied: Tied::UnlessStored(false),
        names: APART,
        full: LATENT,
        moe: Some(BIASED_MOE),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "dots1",
        names: Names { experts: "mlp.experts", ..APART },
        full: Attention { qk_norm: QkNorm::Head, ..ATTENTION },
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
        moe: Some(BIASED_MOE),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "glm4_moe",
        also: &["solar_open"],
        tied: Tied::UnlessStored(false),
        names: APART,
        full: Attention {
            qkv_bias: Bias::Key("attention_bias"),
            qk_norm: QkNorm::HeadIf("use_qk_norm", false),
            rope: RopeRule { dims: RopeDims::Partial(0.5), ..ROPE },
            ..ATTENTION
        },
        moe: Some(BIASED_MOE),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "glm4_moe_lite",
        tied: Tied::UnlessStored(false),
        names: APART,
        norm: NormRule { eps: ("rms_norm_eps", 1e-5), ..BASE.norm },
        full: Attention { latent: Some(Latent { absorbed: true, eps: None }), ..LATENT },
        moe: Some(Moe { normalise: Normalise::Several("norm_topk_prob", true, 1e-20), ..BIASED_MOE }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
        ..BASE
    },
    Family {
        name: "kimi_linear",
        names: Names { mixer: "self_attn", correction: "mlp.e_score_correction_bias", ..NAMES },
        layers: Layers::DeltaAt("linear_attn_config.kda_layers"),
        full: Attention {
            rope: RopeRule { on: RopeOn::Never, ..ROPE },
            latent: Some(Latent { absorbed: true, eps: None }),
            ..LATENT
        },
        moe: Some(Moe {
            experts: "num_experts",
            top_k: "num_experts_per_token",
            score: ScoreRule::Key("moe_router_activation_func", Score::Sigmoid),
            groups: Grouping::BestTwoOf("num_expert_group"),
            normalise: Normalise::Several("moe_renormalize", true, 1e-20),
            shared: Shared {
                width: SharedWidth::Product("num_shared_experts", "moe_intermediate_size"),
                ..SHARED
            },
            ..BIASED_MOE
        }),
        dense_layers: DenseLayers::First("first_k_dense_replace"),
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
];
