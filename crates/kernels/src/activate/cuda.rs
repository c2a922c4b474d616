//! Launches of `activate`.

use amoeba_plan::{ActivateOp, Activation};

use crate::elementwise::cuda::elements;
use crate::gpu::{Args, Call, Site};

/// Its name in `activate.cuh`, limit and alpha.
pub(crate) fn parameters(activation: Activation) -> (&'static str, f32, f32) {
    match activation {
        Activation::SwiGlu => ("SWIGLU", 0.0, 0.0),
        Activation::GeGlu => ("GEGLU", 0.0, 0.0),
        Activation::ClampedSwiGlu { limit, alpha } => ("CLAMPED_SWIGLU", limit, alpha),
        Activation::LimitedSwiGlu { limit } => ("LIMITED_SWIGLU", limit, 0.0),
        Activation::Sigmoid => ("SIGMOID", 0.0, 0.0),
        Activation::Product => ("PRODUCT", 0.0, 0.0),
        Activation::Relu2 => ("RELU2", 0.0, 0.0),
        Activation::Gelu => ("GELU", 0.0, 0.0),
        Activation::Silu => ("SILU", 0.0, 0.0),
    }
}

/// The order of the names in `activate.cuh`.
const NAMES: [&str; 9] =
    ["SWIGLU", "GEGLU", "CLAMPED_SWIGLU", "LIMITED_SWIGLU", "SIGMOID", "PRODUCT", "RELU2", "GELU", "SILU"];

pub(crate) fn activate(site: &Site<'_>, op: &ActivateOp) -> Call {
    let ActivateOp { activation, gate, up, out, width } = *op;
    let (name, limit, alpha) = parameters(activation);
    let kind = NAMES.iter().position(|known| *known == name).expect("every activation has its name");
    let args = Args::new()
        .address(site.count())
        .place(site.buffer_or_null(gate))
        .place(site.buffer(up))
        .place(site.buffer(out))
        .size(kind)
        .size(width)
        .float(limit)
        .float(alpha);
    elements(site, "activate", width, args)
}
