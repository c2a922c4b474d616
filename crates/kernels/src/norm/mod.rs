//! `norm`: RMS norm `x / sqrt(mean(x²) + eps) · w` (Zhang & Sennrich 2019) and layer norm (Ba et al. 2016).
//!
//! Contract: works in place on one chunk `[dim]`; weight and bias `[dim]` optional.
//! Tolerance: relative 1e-6 of the largest output plus f32 rounding of the sum, checked in `cases`.

pub mod cpu;
pub mod reference;

#[cfg(test)]
mod cases;

use amoeba_plan::NormKind;

pub use cpu::norm;

/// What a norm needs besides x.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Rms or layer norm.
    pub kind: NormKind,
    /// Learned scale.
    pub weight: Option<&'a [f32]>,
    /// Learned offset.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean square or variance.
    pub eps: f32,
}
