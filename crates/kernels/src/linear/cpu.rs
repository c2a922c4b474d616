//! `linear` on packed weights, any instruction set, any number of rows.
//!
//! Order of the sum, the same for every caller: within a unit four accumulators take the columns in turn and are
//! added as (a0+a1)+(a2+a3); units are added in order, scaled; slices are added in order.

use std::ops::Range;

use amoeba_checkpoint::{Float, Format};

use super::codec::{Codec, DenseBf16, DenseF16, DenseF32, E2m1, E4m3, Int, Scales};
use super::pack::{Layout, Weights};
use crate::simd::{LANES, Simd, dispatch, lanes, lanes_mut, sum};

/// Rows of x of a product.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// All rows, `stride` apart.
    pub x: &'a [f32],
    /// f32 from one row to the next.
    pub stride: usize,
    /// Which rows take part; `None` for the first `rows`.
    pub index: Option<&'a [u32]>,
    /// How many.
    pub rows: usize,
    /// [`group_sums`] of every row of x, `sums_stride` apart; read only if the format has biases.
    pub sums: &'a [f32],
    /// f32 from one row's sums to the next.
    pub sums_stride: usize,
}

impl Input<'_> {
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        self.index.map_or(i, |index| index[i] as usize)
    }
}

/// Takes row of x (in the order of the input), first output and sixteen values; outputs past the matrix's rows
/// are padding.
pub type Sink<'a> = dyn FnMut(usize, usize, &[f32; LANES]) + 'a;

dispatch! {
    /// Sum of x over each group of `group` columns (a multiple of 16, or anything below for one sum per unit).
    pub fn group_sums(x: &[f32], group: usize, out: &mut [f32]) = group_sums_with
}

#[inline(always)]
fn group_sums_with<S: Simd>(simd: S, x: &[f32], group: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(group).zip(out) {
        let mut acc = simd.load(lanes(x, 0));
        for at in (LANES..group).step_by(LANES) {
            acc = simd.add(acc, simd.load(lanes(x, at)));
        }
        *out = sum(simd, acc);
    }
}

dispatch! {
    /// `y = W·x` over row blocks `blocks` and column slices `slices`; x is indexed from the matrix's first column.
    pub fn matmul(w: Weights<'_>, blocks: Range<usize>, slices: Range<usize>, x: &Input<'_>, sink: &mut Sink<'_>) = matmul_with
}

#[inline(always)]
fn matmul_with<S: Simd>(
    simd: S,
    w: Weights<'_>,
    blocks: Range<usize>,
    slices: Range<usize>,
    x: &Input<'_>,
    sink: &mut Sink<'_>,
) {
    let args = Args { w, blocks, slices, x };
    match w.layout.format {
        Format::Dense(Float::F32) => run::<S, DenseF32>(simd, args, sink),
        Format::Dense(Float::F16) => run::<S, DenseF16>(simd, args, sink),
        Format::Dense(Float::BF16) => run::<S, DenseBf16>(simd, args, sink),
        Format::Affine { bits: 2, .. } => run::<S, Int<2, 0>>(simd, args, sink),
        Format::Affine { bits: 3, .. } => run::<S, Int<2, 1>>(simd, args, sink),
        Format::Affine { bits: 4, .. } => run::<S, Int<4, 0>>(simd, args, sink),
        Format::Affine { bits: 5, .. } => run::<S, Int<4, 1>>(simd, args, sink),
        Format::Affine { bits: 6, .. } => run::<S, Int<4, 2>>(simd, args, sink),
        Format::Affine { .. } => run::<S, Int<8, 0>>(simd, args, sink),
        Format::Mxfp4 | Format::Nvfp4 => run::<S, E2m1>(simd, args, sink),
        Format::Mxfp8 => run::<S, E4m3>(simd, args, sink),
    }
}

/// Arguments of [`matmul`].
struct Args<'a> {
    w: Weights<'a>,
    blocks: Range<usize>,
    slices: Range<usize>,
    x: &'a Input<'a>,
}

/// Rows whose sums are kept in registers at a time.
const TILE: usize = 4;
/// Above this many rows a unit is decoded once into a buffer instead of once per tile.
const DECODE_ROWS: usize = 8;
/// Rows per pass of the buffered kernel.
const PASS: usize = 64;
/// Most columns of a unit.
const UNIT_MAX: usize = 128;

#[inline(always)]
fn run<S: Simd, C: Codec>(simd: S, args: Args<'_>, sink: &mut Sink<'_>) {
    for block in args.blocks.clone() {
        if args.x.rows > DECODE_ROWS {
            buffered::<S, C>(simd, &args, block, sink);
            continue;
        }
        let mut row = 0;
        while row < args.x.rows {
            row += match args.x.rows - row {
                1 => tile::<S, C, 1>(simd, &args, block, row, sink),
                2 => tile::<S, C, 2>(simd, &args, block, row, sink),
                3 => tile::<S, C, 3>(simd, &args, block, row, sink),
                _ => tile::<S, C, TILE>(simd, &args, block, row, sink),
            };
        }
    }
}

/// `R` rows against one block, straight from the codes.
#[inline(always)]
fn tile<S: Simd, C: Codec, const R: usize>(
    simd: S,
    args: &Args<'_>,
    block: usize,
    first: usize,
    sink: &mut Sink<'_>,
) -> usize {
    let layout = args.w.layout;
    let rows: [usize; R] = std::array::from_fn(|r| args.x.row(first + r));
    let mut total = [simd.splat(0.0); R];
    for slice in args.slices.clone() {
        let bytes = &args.w.bytes[layout.range(slice, block)];
        let mut part = [simd.splat(0.0); R];
        each_unit(layout, slice, bytes, |start, cols, unit| {
            let x = rows.map(|row| &args.x.x[row * args.x.stride + start..][..cols]);
            let mut acc = [[simd.splat(0.0); 4]; R];
            C::each(simd, unit, cols, |i, q| {
                for r in 0..R {
                    acc[r][i % 4] = simd.fma(q, simd.splat(x[r][i]), acc[r][i % 4]);
                }
            });
            let scales = Scales::read(simd, layout, unit);
            for r in 0..R {
                let sums = || args.x.sums[rows[r] * args.x.sums_stride + start / layout.unit_cols()];
                part[r] = scales.apply(simd, fold(simd, acc[r]), sums, part[r]);
            }
        });
        for r in 0..R {
            total[r] = simd.add(total[r], part[r]);
        }
    }
    for (r, total) in total.into_iter().enumerate() {
        emit(simd, first + r, block, total, sink);
    }
    R
}

/// Any number of rows against one block, each unit decoded once per pass.
#[inline(always)]
fn buffered<S: Simd, C: Codec>(simd: S, args: &Args<'_>, block: usize, sink: &mut Sink<'_>) {
    let layout = args.w.layout;
    for first in (0..args.x.rows).step_by(PASS) {
        let rows = PASS.min(args.x.rows - first);
        let mut total = [0.0; PASS * LANES];
        for slice in args.slices.clone() {
            let bytes = &args.w.bytes[layout.range(slice, block)];
            let mut part = [0.0; PASS * LANES];
            each_unit(layout, slice, bytes, |start, cols, unit| {
                let mut decoded = [0.0; UNIT_MAX * LANES];
                C::each(simd, unit, cols, |i, q| simd.store(q, lanes_mut(&mut decoded, i * LANES)));
                let scales = Scales::read(simd, layout, unit);
                let decoded = &decoded[..cols * LANES];
                let mut row = 0;
                while row + TILE <= rows {
                    dot::<S, TILE>(simd, args, decoded, &scales, start, (first, row), &mut part);
                    row += TILE;
                }
                for row in row..rows {
                    dot::<S, 1>(simd, args, decoded, &scales, start, (first, row), &mut part);
                }
            });
            for at in (0..rows * LANES).step_by(LANES) {
                let sum = simd.add(simd.load(lanes(&total, at)), simd.load(lanes(&part, at)));
                simd.store(sum, lanes_mut(&mut total, at));
            }
        }
        for row in 0..rows {
            emit(simd, first + row, block, simd.load(lanes(&total, row * LANES)), sink);
        }
    }
}

/// `R` rows against one decoded unit.
#[inline(always)]
fn dot<S: Simd, const R: usize>(
    simd: S,
    args: &Args<'_>,
    decoded: &[f32],
    scales: &Scales<S>,
    start: usize,
    (first, row): (usize, usize),
    part: &mut [f32],
) {
    let cols = decoded.len() / LANES;
    let rows: [usize; R] = std::array::from_fn(|r| args.x.row(first + row + r));
    let x = rows.map(|row| &args.x.x[row * args.x.stride + start..][..cols]);
    let mut acc = [[simd.splat(0.0); 4]; R];
    for (i, q) in decoded.chunks_exact(4 * LANES).enumerate() {
        for j in 0..4 {
            let q = simd.load(lanes(q, j * LANES));
            for r in 0..R {
                acc[r][j] = simd.fma(q, simd.splat(x[r][4 * i + j]), acc[r][j]);
            }
        }
    }
    for i in cols / 4 * 4..cols {
        let q = simd.load(lanes(decoded, i * LANES));
        for r in 0..R {
            acc[r][i % 4] = simd.fma(q, simd.splat(x[r][i]), acc[r][i % 4]);
        }
    }
    for r in 0..R {
        let sums = || args.x.sums[rows[r] * args.x.sums_stride + start / args.w.layout.unit_cols()];
        let at = (row + r) * LANES;
        let updated = scales.apply(simd, fold(simd, acc[r]), sums, simd.load(lanes(part, at)));
        simd.store(updated, lanes_mut(part, at));
    }
}

/// Calls `f(first column, columns, bytes)` for each unit of a block of a slice.
#[inline(always)]
fn each_unit(layout: &Layout, slice: usize, bytes: &[u8], mut f: impl FnMut(usize, usize, &[u8])) {
    let (start, cols) = layout.slice(slice);
    let (unit_cols, unit_bytes) = (layout.unit_cols(), layout.unit_bytes());
    for (i, unit) in bytes.chunks(unit_bytes).enumerate() {
        let at = i * unit_cols;
        f(start + at, unit_cols.min(cols - at), unit);
    }
}

#[inline(always)]
fn fold<S: Simd>(simd: S, acc: [S::F; 4]) -> S::F {
    simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3]))
}

#[inline(always)]
fn emit<S: Simd>(simd: S, row: usize, block: usize, value: S::F, sink: &mut Sink<'_>) {
    let mut out = [0.0; LANES];
    simd.store(value, &mut out);
    sink(row, block * LANES, &out);
}
