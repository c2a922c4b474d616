//! Scalar reference of `linear`: f64 accumulation over the exact stored values.

use amoeba_checkpoint::{Error, Matrix};
use amoeba_plan::{HeadLinearOp, LinearOp};

use crate::quant::element;
use crate::reference::Row;

/// Runs `linear`; `product` does what [`linear`] does.
///
/// # Errors
/// The weight is missing or misshapen.
pub fn run(
    op: &LinearOp,
    row: &mut Row<'_>,
    product: impl FnOnce(&Matrix<'_>, Option<&[f32]>, &[f32], &mut [f32]),
) -> Result<(), Error> {
    let mut out = vec![0.0; op.rows];
    product(&row.matrix(op.weight)?, row.vector(op.bias), &row.buffer(op.x)[..op.cols], &mut out);
    *row.buffer_mut(op.out) = out;
    Ok(())
}

/// Runs `head_linear`.
///
/// # Errors
/// The weight is missing or misshapen.
pub fn run_head_linear(op: &HeadLinearOp, row: &mut Row<'_>) -> Result<(), Error> {
    let mut out = vec![0.0; op.heads * op.rows];
    head_linear(&row.stack(op.weight)?, &row.buffer(op.x)[..op.heads * op.cols], &mut out);
    *row.buffer_mut(op.out) = out;
    Ok(())
}

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
