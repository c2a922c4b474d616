//! State spaces and short convolutions between attention layers, and their plain relative.

use super::super::attention_row::{Attention, Bias, HeadDim, QkNorm, RopeOn, RopeRule, Scale};
use super::super::row::{
    Act, Correction, DenseLayers, Factor, Family, Layers, MambaKeys, Mlp, Moe, Names, NormRule, Normalise,
    ScoreRule, Shared, SharedWidth, Tied,
};
use super::{ATTENTION, BASE, BIASED, BIASED_MOE, LOCAL_MOE, MOE, NAMES, ROPE, SHARED, SPARSE_BLOCK};
use crate::Score;

pub(super) const ROWS: &[Family] = &[
    Family {
        name: "granite",
        tied: Tied::Key(true),
        embed_scale: Factor::Key("embedding_multiplier"),
        residual_scale: Factor::Key("residual_multiplier"),
        logit_scale: Factor::Inverse("logits_scaling"),
        full: Attention { head_dim: HeadDim::Hidden, scale: Scale::Key("attention_multiplier"), ..BIASED },
        mlp: Mlp { bias: Bias::Key("mlp_bias"), ..BASE.mlp },
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
        moe: Some(LOCAL_MOE),
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
            rope: RopeRule { on: RopeOn::Unless("position_embedding_type", "nope"), ..ROPE },
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
            rank: None,
        }),
        moe: Some(Moe {
            shared: Shared {
                width: SharedWidth::Key("shared_intermediate_size"),
                gated: false,
                parallel: true,
                mix: None,
            },
            ..LOCAL_MOE
        }),
        dense_layers: DenseLayers::Without("num_local_experts"),
        ..BASE
    },
    Family {
        name: "jamba",
        names: Names {
            final_norm: "model.final_layernorm",
            mixer: "mamba",
            mlp_norm: "pre_ff_layernorm",
            mlp: "feed_forward",
            router: "feed_forward.router",
            experts: "feed_forward.switch_mlp",
            ..NAMES
        },
        tied: Tied::Key(true),
        layers: Layers::Offset("attn_layer_period", "attn_layer_offset"),
        full: Attention {
            head_dim: HeadDim::Hidden,
            rope: RopeRule { on: RopeOn::Never, ..ROPE },
            ..ATTENTION
        },
        mamba: Some(MambaKeys {
            heads: "mamba_expand",
            head_dim: "",
            groups: "",
            state: "mamba_d_state",
            kernel: "mamba_d_conv",
            conv_bias: "mamba_conv_bias",
            bias: "mamba_proj_bias",
            dt_limit: (0.0, f32::MAX),
            norm_by_group: false,
            rank: Some("mamba_dt_rank"),
        }),
        moe: Some(Moe { width: "intermediate_size", score: ScoreRule::Is(Score::TopKSoftmax), ..MOE }),
        dense_layers: DenseLayers::Offset("expert_layer_period", "expert_layer_offset"),
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
            rope: RopeRule { theta: ("rope_theta", 1e6), ..ROPE },
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
        name: "nemotron_h",
        tied: Tied::UnlessStored(false),
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
            rank: None,
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
];
