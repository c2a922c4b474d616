//! `delta_net`: the gated delta rule (Yang, Kautz & Hatamizadeh 2024), with one decay per head or, as in Kimi
//! delta attention (Moonshot 2025), one per key channel.
//!
//! Contract, per value head with state `S [v_dim, k_dim]`, zero before position 0:
//! `g = exp(-exp(a_log) · softplus(decay + dt_bias))`, `β = σ(beta)`,
//! `S ← S · g; S ← S + β (v - S k) ⊗ k; out = S q`. Keys and queries come normalised; nothing is scaled here.
//! The state is f32. Sixteen rows of it are interleaved ([`state_len`]), so that both products run over k
//! without horizontal sums; each is four chains over k modulo four, joined as `(0 + 1) + (2 + 3)`. Rows of
//! the state do not meet: bits depend neither on how they are divided among workers nor on chunking.
//!
//! Tolerance: with `u = 2^-24`, `|k| ≤ 1` and `g, β ≤ 1` a step moves row s of the state by at most
//! `u · ((k_dim/4 + 24) |s| + 16 |v|)` from where exact arithmetic would: `k_dim/4 + 3` roundings in each
//! element of the product with k (Cauchy-Schwarz), 12 of the decay, 8 of β, and a few of the update. The
//! exact step is a contraction, `|g s (1 - β k kᵀ)| ≤ g |s|`, so these errors add up, less what decays, and
//! never grow; the output adds `u (k_dim/4 + 3) |s| |q|`. `cases` runs this bound along.

pub mod cpu;
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod cases;

pub use cpu::step;

use crate::simd::LANES;

/// Chains of a product over k.
pub(crate) const CHAINS: usize = 4;

/// What a value head has of its own at every position.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// `-exp(a_log)`, see [`rates`].
    pub rate: f32,
    /// A number, or one per key channel.
    pub dt_bias: &'a [f32],
}

/// One position of a value head.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// `[k_dim]`.
    pub q: &'a [f32],
    /// `[k_dim]`.
    pub k: &'a [f32],
    /// Of the rows of the state at hand.
    pub v: &'a [f32],
    /// As long as `dt_bias`.
    pub decay: &'a [f32],
    /// One number.
    pub beta: f32,
}

/// Memory of one call.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// q, k, g and g·k, each padded with zeros to whole vectors.
    factors: [Vec<f32>; 4],
}

impl Scratch {
    /// For keys up to that width.
    pub fn new(k_dim: usize) -> Scratch {
        Scratch { factors: std::array::from_fn(|_| vec![0.0; k_dim.next_multiple_of(LANES)]) }
    }
}

/// Floats of the state of `rows` rows (of value channels): `[rows / 16, k_dim, 16]`, both padded with zeros.
pub const fn state_len(rows: usize, k_dim: usize) -> usize {
    rows.next_multiple_of(LANES) * k_dim.next_multiple_of(CHAINS)
}

/// `-exp(a_log)`, nearest.
pub fn rates(a_log: &[f32]) -> Vec<f32> {
    a_log.iter().map(|&a| -(f64::from(a).exp()) as f32).collect()
}
