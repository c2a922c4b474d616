//! Scalar reference of `linear`: f64 accumulation over the exact stored values.

use amoeba_checkpoint::Matrix;

use crate::quant::element;

/// `y = W·x + b` for one row; `x [cols]`, `y [rows]`, `bias [rows]`.
pub fn linear(matrix: &Matrix<'_>, bias: Option<&[f32]>, x: &[f32], y: &mut [f32]) {
    for (row, y) in y.iter_mut().enumerate() {
        let sum = dot(&matrix.rows(row, 1), x) + bias.map_or(0.0, |bias| f64::from(bias[row]));
        *y = sum as f32;
    }
}

/// One output in f64.
pub fn dot(row: &Matrix<'_>, x: &[f32]) -> f64 {
    x.iter().enumerate().map(|(col, &x)| element(row, col) * f64::from(x)).sum()
}
