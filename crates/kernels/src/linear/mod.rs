//! `linear`: `y = W·x + b` for one or many rows of x, W in any stored format.
//!
//! Contract: `x [n, cols]` f32, `W [rows, cols]`, `y [n, rows]` f32.
//! - [`mod@reference`] accumulates in f64 straight from the stored bytes.
//! - [`cpu`] works on [`Packed`] weights with f32 accumulation in one fixed order, so its bits depend neither on
//!   the instruction set nor on how many rows or threads take part.
//! - Tolerance: [`error_bound`].

mod codec;
pub mod cpu;
mod digits;
mod int;
mod pack;
pub mod reference;

#[cfg(test)]
mod cases;

pub use cpu::{Input, matmul};
pub use digits::{Arrangement, prepare};
pub use pack::{Layout, Packed, Piece, Weights};

/// Bound on `|y_fast - y_exact|` for f32 accumulation, from the sums of magnitudes that enter it.
///
/// `magnitude` is `Σ |x_j| · (|scale·code| + |bias|)`; a chain of `cols/4 + 8` roundings of half an ulp each bounds
/// the error (Higham 2002, §4.2), 2^-24 being half an ulp of one.
pub fn error_bound(cols: usize, magnitude: f64) -> f64 {
    (cols as f64 / 4.0 + 8.0) * 2f64.powi(-24) * magnitude
}
