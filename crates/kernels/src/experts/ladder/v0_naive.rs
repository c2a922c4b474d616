//! Step 0, naive: scalar, one weight after another from the stored tensors, with what the format says about
//! each.
//!
//! Every weight costs the reading of its scale and bias and a dozen instructions; every row of x pays again.

use std::ops::Range;

use super::{Product, Rows, Tensors, Which};
use crate::linear::cpu::Sink;
use crate::quant::element;
use crate::simd::LANES;

/// See the module.
pub(super) struct Naive<'a> {
    pub(super) tensors: &'a Tensors,
}

impl Product for Naive<'_> {
    fn product(&self, which: Which, expert: usize, blocks: Range<usize>, x: &Rows<'_>, sink: &mut Sink<'_>) {
        let matrix = self.tensors.matrix(which, expert);
        for i in 0..x.index.len() {
            for block in blocks.clone() {
                let mut y = [0.0; LANES];
                for (lane, y) in y.iter_mut().enumerate() {
                    let weights = matrix.rows(block * LANES + lane, 1);
                    for (col, &x) in x.row(i).iter().enumerate() {
                        *y += element(&weights, col) as f32 * x;
                    }
                }
                sink(i, block * LANES, &y);
            }
        }
    }
}
