//! Ops of the reference interpreter that multiply, route and turn.

use amoeba_checkpoint::Matrix;
use amoeba_kernels::{activate, experts, linear, rope, router};
use amoeba_plan::{BufferId, ExpertWeights, ExpertsOp, Op};

use super::{Reference, threads};
use crate::{Error, Row};

impl Reference {
    /// A matrix, or one for each head.
    pub(super) fn product(&mut self, op: &Op, rows: usize) -> Result<(), Error> {
        match op {
            Op::Linear { weight, bias, x, out } => {
                let matrix = self.matrix(*weight)?;
                let bias = self.vector(*bias);
                let products = self.buffers.0[x.0][..rows].iter().map(|x| {
                    let mut y = vec![0.0; matrix.rows];
                    threads::product(self.threads, &matrix, bias, &x[..matrix.cols], &mut y);
                    y
                });
                let products = products.collect();
                self.buffers.0[out.0] = products;
            }
            Op::HeadLinear { weight, heads, rows: width, x, out, cols } => {
                let stack = self.stack(*weight)?;
                let products = self.buffers.0[x.0][..rows].iter().map(|x| {
                    let mut y = vec![0.0; heads * width];
                    linear::reference::head_linear(&stack, &x[..heads * cols], &mut y);
                    y
                });
                let products = products.collect();
                self.buffers.0[out.0] = products;
            }
            other => unreachable!("{} is no product", other.name()),
        }
        Ok(())
    }

    pub(super) fn rope(&mut self, op: &Op, rows: &[Row]) {
        let Op::Rope { rope, heads, head_dim, first, x } = op else {
            unreachable!("{} is no rope", op.name())
        };
        let rope = &self.plan.ropes[rope.0];
        let mut table = vec![0.0; rope.dims];
        for (row, x) in rows.iter().zip(&mut self.buffers.0[x.0]) {
            rope::table(rope, row.position as u32, &mut table);
            for head in x.chunks_exact_mut(*head_dim).take(*heads) {
                rope::rotate(&mut head[*first..], &table, rope.interleaved);
            }
        }
    }

    pub(super) fn activate(&mut self, op: &Op, rows: usize) {
        let Op::Activate { activation, gate, up, out, width } = op else {
            unreachable!("{} is no activation", op.name())
        };
        let activated = (0..rows).map(|row| {
            let value = |buffer: BufferId, i: usize| self.buffers.0[buffer.0][row][i];
            let gate = |i| gate.map_or(0.0, |gate| value(gate, i));
            (0..*width).map(|i| activate::reference(*activation, gate(i), value(*up, i)) as f32).collect()
        });
        let activated = activated.collect();
        self.buffers.0[out.0] = activated;
    }

    pub(super) fn router(&mut self, op: &Op, rows: usize) {
        let Op::Router { logits, out, rule, correction, per_expert, input_gate, experts } = op else {
            unreachable!("{} is no router", op.name())
        };
        let [correction, per_expert] = [*correction, *per_expert].map(|id| self.vector(id));
        let learned = router::Learned { correction, per_expert };
        let routes = self.buffers.0[logits.0][..rows].iter().map(|logits| {
            let mut route = vec![0.0; 2 * rule.top_k];
            router::reference::route(rule, learned, &logits[..*experts], &mut route);
            route
        });
        let mut routes: Vec<Vec<f32>> = routes.collect();
        if let Some(gate) = input_gate {
            let weights = routes.iter_mut().map(|route| vec![router::take_weight(route)]);
            self.buffers.0[gate.0] = weights.collect();
        }
        self.buffers.0[out.0] = routes;
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
