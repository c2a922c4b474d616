//! `attention`: softmax attention of one query position over cached keys and values (GQA, Ainslie et al. 2023).
//!
//! Contract: a query at position p sees positions `max(0, p+1-window)..=p`; scores are `scale·q·k`, soft-capped
//! if asked; an optional sink logit takes part in the softmax without a value. The CPU kernel works on chunks of
//! [`CHUNK`] positions whose partial results (max, sum, unscaled output) are merged in order of
//! position, so its bits do not depend on how chunks are spread over workers.
//! Tolerance against the f64 reference: 1e-5 of the largest value, checked in `cases`.

pub mod cpu;
pub mod reference;

#[cfg(test)]
mod cases;

pub use cpu::{Heads, chunk, merge};

/// Positions per partial result.
pub const CHUNK: usize = 256;

/// What the heads of one layer share.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width of a query or key.
    pub head_dim: usize,
    /// Width of a value.
    pub v_dim: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// `cap·tanh(s/cap)` on scores.
    pub softcap: Option<f32>,
}

/// First position a query at `position` sees.
pub fn first_visible(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}
