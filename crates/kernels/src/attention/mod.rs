//! `attention`: softmax attention of query positions over cached keys and values (GQA, Ainslie et al. 2023).
//!
//! Contract: a query at position p sees positions [`first_visible`]`..=p`; scores are `scale·q·k`,
//! soft-capped if asked; an optional sink logit takes part in the softmax without a value. The CPU kernel
//! works on chunks of [`CHUNK`] positions, whose partial results (max, sum, unscaled output) are folded in
//! order of position (online softmax, Milakov & Gimelshein 2018), so its bits depend neither on how chunks
//! are spread over workers nor on how many queries share a pass. Tolerance against the f64 reference: 1e-5 of
//! the largest value for f32 caches, checked in `cases`.

mod cache;
pub mod cpu;
pub(crate) mod cuda;
mod flash;
pub mod reference;
mod tiles;

#[cfg(test)]
mod cases;

use amoeba_plan::{AttentionOp, Window};

pub use cache::{Element, Half, Head, KEY_STRIDE, key_at, key_len, value_at, value_len};
pub use cpu::{Query, Scratch, chunk, finish, fold, partial_len};

/// Positions per partial result; whole blocks of sixteen.
pub const CHUNK: usize = 256;
/// Most queries of one call of [`chunk`].
pub const QUERIES: usize = 16;

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

impl Shape {
    /// That of an op.
    pub const fn of(op: &AttentionOp) -> Shape {
        Shape { head_dim: op.head_dim, v_dim: op.v_dim, scale: op.scale, softcap: op.softcap }
    }
}

/// First position a query at `position` sees.
pub fn first_visible(position: usize, window: Option<Window>) -> usize {
    match window {
        None => 0,
        Some(Window::Sliding(width)) => (position + 1).saturating_sub(width),
        Some(Window::Chunk(width)) => position / width * width,
    }
}
