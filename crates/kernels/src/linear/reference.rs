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

/// `y_h = W_h·x_h` for one row; `x [heads·cols]`, `y [heads·rows]`.
pub fn head_linear(matrices: &[Matrix<'_>], x: &[f32], y: &mut [f32]) {
    let Some(&Matrix { rows, cols, .. }) = matrices.first() else { return };
    let heads = x.chunks_exact(cols).zip(y.chunks_exact_mut(rows));
    matrices.iter().zip(heads).for_each(|(matrix, (x, y))| linear(matrix, None, x, y));
}

/// One output in f64.
pub fn dot(row: &Matrix<'_>, x: &[f32]) -> f64 {
    x.iter().enumerate().map(|(col, &x)| element(row, col) * f64::from(x)).sum()
}
