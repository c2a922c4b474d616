//! Scalar reference of `experts` in f64.

use amoeba_checkpoint::{Error, Matrix};
use amoeba_plan::{Activation, ExpertWeights, ExpertsOp};

use crate::activate;
use crate::linear::reference::dot;
use crate::quant::element;
use crate::reference::Row;

/// Runs the op; `sum` does what [`Experts::sum`] does.
///
/// # Errors
/// A weight is missing or misshapen.
pub fn run(
    op: &ExpertsOp,
    row: &mut Row<'_>,
    sum: impl FnOnce(&Experts<'_>, &[f32], &[f32], &mut [f32]),
) -> Result<(), Error> {
    let stack = |weights: ExpertWeights| Ok((row.stack(weights.stack)?, row.vector(weights.bias)));
    let gate = op.gate.map(stack).transpose()?;
    let (up, down) = (stack(op.up)?, stack(op.down)?);
    let layer = Experts {
        gate: gate.as_ref().map(Stored::of),
        up: Stored::of(&up),
        down: Stored::of(&down),
        activation: op.activation,
    };
    let mut out = vec![0.0; op.hidden];
    sum(&layer, &row.buffer(op.x)[..op.hidden], row.buffer(op.route), &mut out);
    *row.buffer_mut(op.out) = out;
    Ok(())
}

/// One projection of all experts, as stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// One matrix per expert.
    pub matrices: &'a [Matrix<'a>],
    /// `[experts, out]`.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Stored<'a> {
    fn of((matrices, bias): &'a (Vec<Matrix<'a>>, Option<&'a [f32]>)) -> Stored<'a> {
        Stored { matrices, bias: *bias }
    }

    fn output(&self, expert: usize, row: usize, x: &[f32]) -> f64 {
        self.with_bias(expert, row, dot(&self.matrices[expert].rows(row, 1), x))
    }

    fn with_bias(&self, expert: usize, row: usize, sum: f64) -> f64 {
        sum + self.bias.map_or(0.0, |bias| f64::from(bias[expert * self.matrices[expert].rows + row]))
    }
}

/// The experts of a layer, as stored.
#[derive(Clone, Copy, Debug)]
pub struct Experts<'a> {
    /// Gate projections, if the activation has them.
    pub gate: Option<Stored<'a>>,
    /// Up projections.
    pub up: Stored<'a>,
    /// Down projections.
    pub down: Stored<'a>,
    /// Activation.
    pub activation: Activation,
}

impl Experts<'_> {
    /// Output of one expert for `x`, unweighted, in f64: `[hidden]`.
    pub fn one(&self, expert: usize, x: &[f32]) -> Vec<f64> {
        let d_ff = self.up.matrices[expert].rows;
        let inner: Vec<f64> = (0..d_ff)
            .map(|row| {
                let gate = self.gate.map_or(0.0, |gate| gate.output(expert, row, x));
                activate::reference::activate(
                    self.activation,
                    gate as f32,
                    self.up.output(expert, row, x) as f32,
                )
            })
            .collect();
        let down = &self.down.matrices[expert];
        (0..down.rows)
            .map(|row| {
                let weights = down.rows(row, 1);
                let sum = inner.iter().enumerate().map(|(col, a)| element(&weights, col) * a).sum();
                self.down.with_bias(expert, row, sum)
            })
            .collect()
    }

    /// Weighted sum over a route `[2·top_k]`.
    pub fn sum(&self, x: &[f32], route: &[f32], out: &mut [f32]) {
        let (indices, weights) = route.split_at(route.len() / 2);
        let mut total = vec![0.0; out.len()];
        for (&index, &weight) in indices.iter().zip(weights) {
            let part = self.one(index as usize, x);
            total.iter_mut().zip(part).for_each(|(total, y)| *total += f64::from(weight) * y);
        }
        out.iter_mut().zip(total).for_each(|(out, total)| *out = total as f32);
    }
}
