//! Reference of `rope`.

use amoeba_plan::RopeOp;

use super::{rotate, table};
use crate::reference::Row;

/// Runs the op.
pub fn run(op: &RopeOp, row: &mut Row<'_>) {
    let rope = &row.plan.ropes[op.rope.0];
    let mut angles = vec![0.0; rope.dims];
    table(rope, row.position as u32, &mut angles);
    for head in row.buffer_mut(op.x).chunks_exact_mut(op.head_dim).take(op.heads) {
        rotate(&mut head[op.first..], &angles, rope.interleaved);
    }
}
