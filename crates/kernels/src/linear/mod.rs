//! `linear`: `y = W·x + b` for one or many rows of x, W in any stored format; `head_linear`: `y_h = W_h·x_h`.
//!
//! Contract: `x [n, cols]` f32, `W [rows, cols]`, `y [n, rows]` f32.
//! - [`mod@reference`] accumulates in f64 straight from the stored bytes.
//! - [`cpu`] works on [`Packed`] weights with f32 accumulation in one fixed order, so its bits depend neither
//!   on the instruction set nor on how many rows or threads take part.
//! - Tolerance: [`error_bound`].
//! - Per head: `x [n, heads·cols]`, `W [heads, rows, cols]`, `y [n, heads·rows]`. x is prepared as one row,
//!   since `cols` are whole groups; each head is a product of its own, [`Input::from_column`] on.

use amoeba_checkpoint::Format;

pub(crate) mod codec;
pub mod cpu;
pub(crate) mod cuda;
mod digits;
pub(crate) mod gemm;
mod int;
mod matmul;
mod pack;
pub mod reference;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only tests use it there"))]
pub(crate) mod tiles;

pub use cpu::Input;
pub use digits::{Arrangement, Digits, prepare};
pub use matmul::{matmul, runs_on_tiles};
pub use pack::{Layout, PACKING, Packed, Piece, Weights};

/// Bound on `|y_fast - y_exact|`, from the sums of magnitudes that enter it.
///
/// `magnitude` is `Σ |x_j| · (|scale·code| + |bias|)`; a chain of `cols/4 + 8` roundings of half an ulp each
/// bounds the error of f32 accumulation (Higham 2002, §4.2), 2^-24 being half an ulp of one. Formats
/// multiplied as integers add what x loses to its digits: `spread` is `Σ_groups max|x| · Σ |w_j|`.
pub fn error_bound(format: Format, digits: Digits, cols: usize, magnitude: f64, spread: f64) -> f64 {
    let rounding = (cols as f64 / 4.0 + 8.0) * 2f64.powi(-24) * magnitude;
    rounding + Arrangement::of(format, digits).map_or(0.0, |arrangement| arrangement.step() * spread)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::simd::Isa;

    #[test]
    fn only_many_rows_of_integer_codes_go_to_the_tile_unit() {
        assert!(
            runs_on_tiles(Isa::Amx, Format::Mxfp4, 16)
                && !runs_on_tiles(Isa::Amx, Format::Mxfp4, 15)
                && !runs_on_tiles(Isa::Avx512, Format::Mxfp4, 512)
        );
        assert!(!runs_on_tiles(Isa::Amx, Format::Mxfp8, 512));
    }
}
