//! Step 1, vectors along a stored row: sixteen words of codes at a time, one field of every word per instruction.
//!
//! A word holds 32/bits columns side by side, so x is put in that order once per row of x. What remains slow: scales
//! and biases lie in other tensors and belong to some lanes each, and every output ends in a sum over lanes.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use amoeba_checkpoint::{Float, Format, Matrix};

use super::{Product, Rows, Shape, Tensors, Which, plain_bits};
use crate::linear::cpu::Sink;
use crate::quant::read_float;
use crate::simd::{Isa, LANES, Simd, dispatch, lanes, sum};

/// See the module.
pub(super) struct Row<'a> {
    isa: Isa,
    tensors: &'a Tensors,
    /// Of a code: 2, 4 or 8.
    bits: usize,
}

impl<'a> Row<'a> {
    /// `None` if codes do not fill words or rows do not fill vectors.
    pub(super) fn new(isa: Isa, tensors: &'a Tensors, shape: Shape, format: Format) -> Option<Row<'a>> {
        let bits = usize::from(plain_bits(format)?);
        let whole = |cols: usize| cols.is_multiple_of(512 / bits);
        (whole(shape.hidden) && whole(shape.d_ff)).then_some(Row { isa, tensors, bits })
    }
}

impl Product for Row<'_> {
    /// Per vector of codes: its columns field by field, then the sum of each lane's.
    fn len(&self, cols: usize) -> usize {
        cols + cols / (32 / self.bits)
    }

    fn prepare(&self, x: &[f32], out: &mut [f32]) {
        let fields = 32 / self.bits;
        for (x, out) in x.chunks_exact(LANES * fields).zip(out.chunks_exact_mut(LANES * (fields + 1))) {
            let (out, sums) = out.split_at_mut(LANES * fields);
            for (lane, x) in x.chunks_exact(fields).enumerate() {
                x.iter().enumerate().for_each(|(field, &x)| out[field * LANES + lane] = x);
                sums[lane] = x.iter().sum();
            }
        }
    }

    fn product(&self, which: Which, expert: usize, blocks: Range<usize>, x: &Rows<'_>, sink: &mut Sink<'_>) {
        outputs(self.isa, &self.tensors.matrix(which, expert), blocks, x, sink);
    }
}

dispatch! {
    fn outputs(matrix: &Matrix<'_>, blocks: Range<usize>, x: &Rows<'_>, sink: &mut Sink<'_>) = outputs_with
}

#[inline(always)]
fn outputs_with<S: Simd>(
    simd: S,
    matrix: &Matrix<'_>,
    blocks: Range<usize>,
    x: &Rows<'_>,
    sink: &mut Sink<'_>,
) {
    let Format::Affine { bits, group, scale } = matrix.format else { return };
    for i in 0..x.index.len() {
        for block in blocks.clone() {
            let mut y = [0.0; LANES];
            for lane in 0..LANES {
                let row = matrix.rows(block * LANES + lane, 1);
                y[lane] = match (bits, group) {
                    (2, 32) => dot::<S, 2, 16, 32>(simd, &row, scale, x.row(i)),
                    (2, 64) => dot::<S, 2, 16, 64>(simd, &row, scale, x.row(i)),
                    (2, _) => dot::<S, 2, 16, 128>(simd, &row, scale, x.row(i)),
                    (4, 32) => dot::<S, 4, 8, 32>(simd, &row, scale, x.row(i)),
                    (4, 64) => dot::<S, 4, 8, 64>(simd, &row, scale, x.row(i)),
                    (4, _) => dot::<S, 4, 8, 128>(simd, &row, scale, x.row(i)),
                    (_, 32) => dot::<S, 8, 4, 32>(simd, &row, scale, x.row(i)),
                    (_, 64) => dot::<S, 8, 4, 64>(simd, &row, scale, x.row(i)),
                    (_, _) => dot::<S, 8, 4, 128>(simd, &row, scale, x.row(i)),
                };
            }
            sink(i, block * LANES, &y);
        }
    }
}

/// One output. The constants make the spreading of scales over lanes a few instructions.
#[inline(always)]
fn dot<S: Simd, const BITS: usize, const FIELDS: usize, const GROUP: usize>(
    simd: S,
    row: &Matrix<'_>,
    float: Float,
    x: &[f32],
) -> f32 {
    let mut y = simd.splat(0.0);
    for (i, words) in row.weight.as_chunks::<64>().0.iter().enumerate() {
        let x = &x[i * LANES * (FIELDS + 1)..][..LANES * (FIELDS + 1)];
        let words = simd.words(words);
        let mut acc = [simd.splat(0.0); 2];
        for field in 0..FIELDS {
            let codes = simd.field(words, (BITS * field) as u32, (1 << BITS) - 1);
            acc[field % 2] = simd.fma(codes, simd.load(lanes(x, field * LANES)), acc[field % 2]);
        }
        let (mut scales, mut biases) = ([0.0; LANES], [0.0; LANES]);
        let group_lanes = (GROUP / FIELDS).min(LANES);
        for first in 0..LANES / group_lanes {
            let at = (i * LANES + first * group_lanes) * FIELDS / GROUP;
            let (scale, bias) = (read_float(row.scales, at, float), read_float(row.biases, at, float));
            for lane in first * group_lanes..(first + 1) * group_lanes {
                scales[lane] = scale;
                biases[lane] = bias;
            }
        }
        y = simd.fma(simd.load(&scales), simd.add(acc[0], acc[1]), y);
        y = simd.fma(simd.load(&biases), simd.load(lanes(x, FIELDS * LANES)), y);
    }
    sum(simd, y)
}
