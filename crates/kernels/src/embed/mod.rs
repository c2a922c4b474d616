//! `embed`: `out = scale · table[token]`.
//!
//! Contract: table `[vocab, hidden]` in any format, read in the file's order; `out [hidden]`. One implementation
//! serves every CPU path: a row is too small to matter.

use amoeba_checkpoint::Matrix;

use crate::quant::dequantise_row;

/// Writes the embedding of `token`.
///
/// # Panics
/// If `token` is outside the table; the engine checks tokens when it admits them.
pub fn embed(table: &Matrix<'_>, token: u32, scale: f32, out: &mut [f32]) {
    dequantise_row(table, token as usize, out);
    if scale != 1.0 {
        out.iter_mut().for_each(|x| *x *= scale);
    }
}
