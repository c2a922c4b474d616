//! `norm`: RMS norm `x / sqrt(mean(x²) + eps) · w` (Zhang & Sennrich 2019) and layer norm (Ba et al. 2016).
//!
//! Contract: works in place on one chunk `[dim]`; weight and bias `[dim]` optional; a factor on all of it.
//! Tolerance: relative 1e-6 of the largest output plus f32 rounding of the sum, checked in `cases`.

pub mod cpu;
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod cases;

use amoeba_plan::{NormKind, NormOp, WeightId};

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
    /// Factor on the result.
    pub scale: f32,
}

impl<'a> Norm<'a> {
    /// The norm of an op, whose vectors `vector` looks up.
    pub fn of(op: &NormOp, vector: impl Fn(Option<WeightId>) -> Option<&'a [f32]>) -> Norm<'a> {
        let (weight, bias) = (vector(op.weight), vector(op.bias));
        Norm { kind: op.kind, weight, bias, eps: op.eps, scale: op.scale }
    }

    /// The norm of chunk `i`, where each chunk of `dim` elements has weights of its own.
    pub fn of_chunk(&self, i: usize, dim: usize) -> Norm<'a> {
        let own = |all: Option<&'a [f32]>| all.map(|all| &all[i * dim..][..dim]);
        Norm { weight: own(self.weight), bias: own(self.bias), ..*self }
    }
}
