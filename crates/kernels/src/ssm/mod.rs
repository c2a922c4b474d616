//! `ssm`: selective state spaces, Mamba-2 (Dao & Gu 2024; a decay per head) and Mamba-1 (Gu & Dao 2023; heads
//! of width one, a decay per column of the state).
//!
//! Contract, per head with state `S [head_dim, state]`, zero before position 0:
//! `δ = clamp(softplus(dt + dt_bias))`, `S ← S · exp(-exp(a_log) δ) + δ x ⊗ B; out = S C + d x`; heads of a
//! group share B and C. The state is f32.
//!
//! Channels that share B and C are a *band* ([`Shape::bands`]): the rows of a head, or, where heads are one
//! wide, the heads of a group. Sixteen channels of a band are interleaved ([`Shape::state_len`]), so that the
//! product with C runs over the state without horizontal sums: two chains over its columns modulo two.
//! Channels do not meet: bits depend neither on how they are divided among workers nor on chunking.
//!
//! Tolerance: with `u = 2^-24`, a step moves an element s of the state by at most `u · (16 |s| + 20 |δ x B|)`
//! from where exact arithmetic would (12 for the decay, whose exponent is a rounded product of a rounded
//! softplus; 14 for δ and what it multiplies), and a decay below one never lets these grow; the output adds
//! `u · (state/2 + 3) Σ|s C|` and the last product. `cases` runs this bound along.

pub mod cpu;
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod cases;

pub use cpu::step;

use amoeba_plan::SsmOp;

use crate::simd::LANES;

/// Sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Groups of heads that share B and C.
    pub groups: usize,
    /// Columns of the state.
    pub state: usize,
}

impl Shape {
    /// Those of an op.
    pub const fn of(op: &SsmOp) -> Shape {
        Shape { heads: op.heads, head_dim: op.head_dim, groups: op.groups, state: op.state }
    }

    /// Whether channels of a band belong to different heads.
    pub const fn heads_side_by_side(&self) -> bool {
        self.head_dim == 1
    }

    /// Number of bands: heads, or groups where heads are one wide.
    pub const fn bands(&self) -> usize {
        if self.heads_side_by_side() { self.groups } else { self.heads }
    }

    /// Channels of a band.
    pub const fn width(&self) -> usize {
        self.heads * self.head_dim / self.bands()
    }

    /// Bands that share B and C.
    pub const fn bands_per_group(&self) -> usize {
        self.bands() / self.groups
    }

    /// Heads of a band.
    pub const fn heads_per_band(&self) -> usize {
        self.heads / self.bands()
    }

    /// Floats of the state of `channels` channels of a band: `[channels / 16, state, 16]`, padded with zeros.
    pub const fn state_len(&self, channels: usize) -> usize {
        channels.next_multiple_of(LANES) * self.state
    }

    /// `-exp(a_log)`, nearest, from `[heads]`, or from `[heads, state]` if each column decays on its own:
    /// then band after band, and where heads lie side by side as the state, `[channels / 16, state, 16]`.
    pub fn rates(&self, a_log: &[f32], per_state: bool) -> Vec<f32> {
        let rate = |&a: &f32| -(f64::from(a).exp()) as f32;
        if !per_state || !self.heads_side_by_side() {
            return a_log.iter().map(rate).collect();
        }
        let mut rates = vec![0.0; self.bands() * self.state_len(self.width())];
        for (i, a) in a_log.iter().enumerate() {
            let (head, column) = (i / self.state, i % self.state);
            let (band, channel) = (head / self.width(), head % self.width());
            let block = band * self.width().div_ceil(LANES) + channel / LANES;
            rates[(block * self.state + column) * LANES + channel % LANES] = rate(a);
        }
        rates
    }
}

/// What some channels of a band, whole blocks of sixteen, have of their own at every position. Where heads
/// lie side by side there is a number per channel of everything, else one of each.
#[derive(Clone, Copy, Debug)]
pub struct Channels<'a> {
    /// From [`Shape::rates`].
    pub rates: &'a [f32],
    /// Whether each column of the state has its own rate.
    pub per_state: bool,
    /// Whether heads lie side by side.
    pub heads_side_by_side: bool,
    /// Factor of x in the output.
    pub d: &'a [f32],
    /// Added to `dt`.
    pub dt_bias: Option<&'a [f32]>,
    /// Bounds of δ.
    pub dt_limit: (f32, f32),
}

/// One position of some channels.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// A number per channel.
    pub x: &'a [f32],
    /// `[state]`.
    pub b: &'a [f32],
    /// `[state]`.
    pub c: &'a [f32],
    /// Per head.
    pub dt: &'a [f32],
}
