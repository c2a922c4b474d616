//! `conv`: depthwise causal convolution over the positions of a sequence, optionally followed by SiLU: the
//! short convolutions before delta rules and state spaces (Gu & Dao 2023), and LFM2's mixer.
//!
//! Contract: `out_c = act(b_c + Σ_j w_c,j · x_c(t - taps + j))`, j from 0 to `taps`; inputs before position 0
//! are zero. Weights are stored `[channels, taps + 1]`, the oldest input's first ([`pack`] makes of them what
//! the kernel reads). The last `taps` inputs of a channel are kept as they are, in a ring: the input at
//! position t lies in place `t mod taps`, so one step moves nothing else. Terms are added oldest first, so
//! bits depend on no chunking. Tolerance: `taps + 2` roundings of a sum of `|b| + Σ|w·x|`, 2^-24 each; SiLU,
//! whose slope is below 1.1, adds 1e-6 of the result. Checked in `cases`.

pub mod cpu;
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod cases;

pub use cpu::step;

use crate::simd::LANES;

/// What the kernel needs besides inputs; for some whole blocks of sixteen channels.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// As [`pack`] makes them.
    pub weights: &'a [f32],
    /// A number per channel.
    pub bias: Option<&'a [f32]>,
    /// Kernel width less one.
    pub taps: usize,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Floats kept for `channels` channels: `[channels / 16, taps, 16]`.
pub const fn state_len(channels: usize, taps: usize) -> usize {
    channels.next_multiple_of(LANES) * taps
}

/// From `[channels, taps + 1]` to `[channels / 16, taps + 1, 16]`, padded with zeros.
pub fn pack(weights: &[f32], taps: usize) -> Vec<f32> {
    let width = taps + 1;
    let mut packed = vec![0.0; (weights.len() / width).next_multiple_of(LANES) * width];
    for (i, &weight) in weights.iter().enumerate() {
        let (channel, tap) = (i / width, i % width);
        packed[(channel / LANES * width + tap) * LANES + channel % LANES] = weight;
    }
    packed
}
