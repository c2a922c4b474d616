//! Ops of the reference interpreter that multiply, route and turn.

use amoeba_checkpoint::Matrix;
use amoeba_kernels::{activate, experts, linear, rope, router};
use amoeba_plan::{ActivateOp, BufferId, ExpertWeights, ExpertsOp, HeadLinearOp, LinearOp, RopeOp, RouterOp};

use super::{Interpreter, threads};
use crate::{Error, Row};

impl Interpreter {
    pub(super) fn linear(&mut self, op: &LinearOp, rows: usize) -> Result<(), Error> {
        let (matrix, bias) = (self.matrix(op.weight)?, self.vector(op.bias));
        let products = self.buffers.0[op.x.0][..rows].iter().map(|x| {
            let mut y = vec![0.0; op.rows];
            threads::product(self.threads, &matrix, bias, &x[..op.cols], &mut y);
            y
        });
        let products = products.collect();
        self.buffers.0[op.out.0] = products;
        Ok(())
    }

    /// A matrix for each head.
    pub(super) fn head_linear(&mut self, op: &HeadLinearOp, rows: usize) -> Result<(), Error> {
        let stack = self.stack(op.weight)?;
        let products = self.buffers.0[op.x.0][..rows].iter().map(|x| {
            let mut y = vec![0.0; op.heads * op.rows];
            linear::reference::head_linear(&stack, &x[..op.heads * op.cols], &mut y);
            y
        });
        let products = products.collect();
        self.buffers.0[op.out.0] = products;
        Ok(())
    }

    pub(super) fn rope(&mut self, op: &RopeOp, rows: &[Row]) {
        let rope = &self.plan.ropes[op.rope.0];
        let mut table = vec![0.0; rope.dims];
        for (row, x) in rows.iter().zip(&mut self.buffers.0[op.x.0]) {
            rope::table(rope, row.position as u32, &mut table);
            for head in x.chunks_exact_mut(op.head_dim).take(op.heads) {
                rope::rotate(&mut head[op.first..], &table, rope.interleaved);
            }
        }
    }

    pub(super) fn activate(&mut self, op: &ActivateOp, rows: usize) {
        let activated = (0..rows).map(|row| {
            let value = |buffer: BufferId, i: usize| self.buffers.0[buffer.0][row][i];
            let gate = |i| op.gate.map_or(0.0, |gate| value(gate, i));
            let activated = |i| activate::reference(op.activation, gate(i), value(op.up, i)) as f32;
            (0..op.width).map(activated).collect()
        });
        let activated = activated.collect();
        self.buffers.0[op.out.0] = activated;
    }

    pub(super) fn router(&mut self, op: &RouterOp, rows: usize) {
        let [correction, per_expert] = [op.correction, op.per_expert].map(|id| self.vector(id));
        let learned = router::Learned { correction, per_expert };
        let routes = self.buffers.0[op.logits.0][..rows].iter().map(|logits| {
            let mut route = vec![0.0; 2 * op.rule.top_k];
            router::reference::route(&op.rule, learned, &logits[..op.experts], &mut route);
            route
        });
        let mut routes: Vec<Vec<f32>> = routes.collect();
        if let Some(gate) = op.input_gate {
            let weights = routes.iter_mut().map(|route| vec![router::take_weight(route)]);
            self.buffers.0[gate.0] = weights.collect();
        }
        self.buffers.0[op.out.0] = routes;
    }

    pub(super) fn experts(&mut self, op: &ExpertsOp, rows: usize) -> Result<(), Error> {
        let stack = |weights: ExpertWeights| self.stack(weights.stack);
        let gate = op.gate.map(stack).transpose()?;
        let (up, down) = (stack(op.up)?, stack(op.down)?);
        fn stored<'a>(matrices: &'a [Matrix<'a>], bias: Option<&'a [f32]>) -> experts::reference::Stored<'a> {
            experts::reference::Stored { matrices, bias }
        }
        let layer = experts::reference::Experts {
            gate: gate.as_ref().zip(op.gate).map(|(gate, weights)| stored(gate, self.vector(weights.bias))),
            up: stored(&up, self.vector(op.up.bias)),
            down: stored(&down, self.vector(op.down.bias)),
            activation: op.activation,
        };
        let sums = (0..rows).map(|row| {
            let mut out = vec![0.0; op.hidden];
            let x = &self.buffers.0[op.x.0][row][..op.hidden];
            threads::sum(self.threads, &layer, x, &self.buffers.0[op.route.0][row], &mut out);
            out
        });
        let sums = sums.collect();
        self.buffers.0[op.out.0] = sums;
        Ok(())
    }
}
