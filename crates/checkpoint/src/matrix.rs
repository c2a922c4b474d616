//! Borrowed views of stored matrices.

use crate::Format;

/// One `[rows, cols]` matrix as stored; `y = W·x` has `rows` outputs and `cols` inputs.
///
/// Lengths are validated by the loader: `weight` holds `rows · format.row_bytes(cols)` bytes, `scales` (and
/// `biases` where the format has them) `rows · cols / group` elements; all little-endian, of any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// How the numbers are stored.
    pub format: Format,
    /// Packed codes (or plain elements).
    pub weight: &'a [u8],
    /// One scale per row and group; empty when dense.
    pub scales: &'a [u8],
    /// One bias per row and group; empty unless affine.
    pub biases: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// Rows `start..start + rows` of this matrix.
    ///
    /// # Panics
    /// If the range leaves the matrix (a caller's bug, not an input error).
    pub fn rows(&self, start: usize, rows: usize) -> Matrix<'a> {
        assert!(start + rows <= self.rows, "rows {start}+{rows} of {}", self.rows);
        let part = |bytes: &'a [u8]| {
            let per_row = bytes.len().checked_div(self.rows).unwrap_or(0);
            &bytes[start * per_row..(start + rows) * per_row]
        };
        Matrix {
            rows,
            weight: part(self.weight),
            scales: part(self.scales),
            biases: part(self.biases),
            ..*self
        }
    }

    /// Bytes of codes, scales and biases.
    pub fn bytes(&self) -> usize {
        self.weight.len() + self.scales.len() + self.biases.len()
    }
}
