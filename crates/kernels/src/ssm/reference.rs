//! Scalar reference of `ssm` in f64.

use amoeba_plan::SsmOp;

use super::Token;
use crate::reference::Row;

/// Runs the op; `state [heads, head_dim, state]` is that of the row's sequence.
pub fn run(op: &SsmOp, row: &mut Row<'_>, state: &mut [f64]) {
    let (dim, columns) = (op.head_dim, op.state);
    let rates = if op.per_state { columns } else { 1 };
    let mut out = vec![0.0; op.heads * dim];
    let heads = state.chunks_exact_mut(dim * columns).zip(out.chunks_exact_mut(dim));
    for (h, (state, out)) in heads.enumerate() {
        let group = h / (op.heads / op.groups);
        let head = Head {
            a_log: &row.vectors[op.a_log.0][h * rates..][..rates],
            d: row.vectors[op.d.0][h],
            dt_bias: row.vector(op.dt_bias).map_or(0.0, |bias| bias[h]),
            dt_limit: op.dt_limit,
        };
        let token = Token {
            x: &row.buffer(op.x)[h * dim..][..dim],
            b: &row.buffer(op.b)[group * columns..][..columns],
            c: &row.buffer(op.c)[group * columns..][..columns],
            dt: &row.buffer(op.dt)[h..=h],
        };
        step(&head, &token, state, out);
    }
    *row.buffer_mut(op.out) = out;
}

/// What a head has of its own at every position.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// A number, or one per column of the state.
    pub a_log: &'a [f32],
    /// Factor of x in the output.
    pub d: f32,
    /// Added to `dt`.
    pub dt_bias: f32,
    /// Bounds of δ.
    pub dt_limit: (f32, f32),
}

impl Head<'_> {
    /// δ.
    pub fn delta(&self, dt: f32) -> f64 {
        let softplus = (f64::from(dt) + f64::from(self.dt_bias)).exp().ln_1p();
        softplus.max(f64::from(self.dt_limit.0)).min(f64::from(self.dt_limit.1))
    }

    /// Factor on a column of the state.
    pub fn decay(&self, delta: f64, column: usize) -> f64 {
        let a_log = self.a_log[if self.a_log.len() == 1 { 0 } else { column }];
        (-f64::from(a_log).exp() * delta).exp()
    }
}

/// One position of a head: `state [head_dim, state]`, x and out `[head_dim]`, `dt [1]`.
pub fn step(head: &Head<'_>, token: &Token<'_>, state: &mut [f64], out: &mut [f32]) {
    let delta = head.delta(token.dt[0]);
    for (row, (out, &x)) in state.chunks_exact_mut(token.b.len()).zip(out.iter_mut().zip(token.x)) {
        let x = f64::from(x);
        for (column, (s, &b)) in row.iter_mut().zip(token.b).enumerate() {
            *s = *s * head.decay(delta, column) + delta * x * f64::from(b);
        }
        let product: f64 = row.iter().zip(token.c).map(|(s, &c)| s * f64::from(c)).sum();
        *out = (product + f64::from(head.d) * x) as f32;
    }
}
