//! CUDA texts that ops share.

/// Types, lanes, instructions.
pub(crate) const DEVICE: (&str, &str) = ("cuda/device.cuh", include_str!("device.cuh"));
/// Stored numbers.
pub(crate) const QUANT: (&str, &str) = ("cuda/quant.cuh", include_str!("quant.cuh"));
/// Products with a few rows.
pub(crate) const MATVEC: (&str, &str) = (
    "cuda/matvec.cuh",
    concat!(include_str!("matvec_layout.cuh"), include_str!("matvec_x.cuh"), include_str!("matvec.cuh")),
);
/// Products with many rows.
pub(crate) const GEMM: (&str, &str) = ("cuda/gemm.cuh", include_str!("gemm.cuh"));
/// A product among those of a launch.
pub(crate) const PRODUCT: (&str, &str) = ("linear/product.cuh", include_str!("../linear/product.cuh"));
/// The choice of experts.
pub(crate) const CHOOSE: (&str, &str) = ("router/choose.cuh", include_str!("../router/choose.cuh"));
/// Matrices of experts.
pub(crate) const STACK: (&str, &str) = ("experts/stack.cuh", include_str!("../experts/stack.cuh"));
/// Rotations.
pub(crate) const TURN: (&str, &str) = ("rope/turn.cuh", include_str!("../rope/turn.cuh"));
/// Activations.
pub(crate) const ACTIVATE: (&str, &str) = ("activate/activate.cuh", include_str!("../activate/activate.cuh"));
