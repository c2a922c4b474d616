//! `embed`: `out = scale · table[token]`.
//!
//! Contract: table `[vocab, hidden]` in any format, read in the file's order; `out [hidden]`. One
//! implementation serves every CPU path: a row is too small to matter.

pub(crate) mod cuda;
pub mod reference;

use amoeba_checkpoint::Matrix;

use crate::linear::Packed;
use crate::quant::dequantise_row;

/// [`embed`] from packed weights: the same values.
pub fn embed_packed(table: &Packed, token: u32, scale: f32, out: &mut [f32]) {
    table.unpack_row(token as usize, out);
    scale_by(scale, out);
}

/// Writes the embedding of `token`.
///
/// # Panics
/// If `token` is outside the table; the engine checks tokens when it admits them.
pub fn embed(table: &Matrix<'_>, token: u32, scale: f32, out: &mut [f32]) {
    dequantise_row(table, token as usize, out);
    scale_by(scale, out);
}

fn scale_by(scale: f32, out: &mut [f32]) {
    if scale != 1.0 {
        out.iter_mut().for_each(|x| *x *= scale);
    }
}
