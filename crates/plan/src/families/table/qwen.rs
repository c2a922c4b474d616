//! Qwen with experts.

use super::super::attention_row::{Attention, Bias, Gate, HeadDim, QkNorm, RopeDims, RopeRule};
use super::super::row::{
    DenseLayers, Family, Kind, Layers, Moe, Names, Normalise, Shared, SharedWidth, Tied,
};
use super::{APART, ATTENTION, BASE, BIASED, MOE, NAMES, ROPE};

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

const QWEN_HYBRID_MOE: Moe =
    Moe { normalise: Normalise::Key("norm_topk_prob", false, 0.0), shared: GATED_SHARED, ..MOE };

/// A shared expert scaled by a sigmoid gate.
const GATED_SHARED: Shared = Shared {
    width: SharedWidth::Key("shared_expert_intermediate_size"),
    gated: true,
    parallel: false,
    mix: None,
};

/// mlx-lm's `qwen3_5` reads the base from `rope_parameters` alone; without them it takes these, whatever
/// stands at the top level.
const QWEN35_USUAL: &str =
    r#"{"rope_parameters": {"type": "default", "rope_theta": 100000.0, "partial_rotary_factor": 0.25}}"#;

pub(super) const ROWS: &[Family] = &[
    Family {
        name: "qwen2_moe",
        tied: Tied::UnlessStored(false),
        names: Names { shared: "mlp.shared_expert", ..APART },
        full: Attention { head_dim: HeadDim::Hidden, qkv_bias: Bias::Always, ..ATTENTION },
        moe: Some(Moe { shared: GATED_SHARED, ..MOE }),
        ..BASE
    },
    Family {
        name: "qwen3_moe",
        also: &["qwen3_vl_moe"],
        names: APART,
        full: Attention { qk_norm: QkNorm::Head, ..ATTENTION },
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
        name: "qwen3_5",
        also: &["qwen3_5_moe"],
        defaults: [QWEN35_USUAL; 2],
        moe: Some(Moe { normalise: Normalise::Key("norm_topk_prob", true, 0.0), ..QWEN_HYBRID_MOE }),
        ..QWEN_HYBRID
    },
];
