//! `linear` on packed weights, any instruction set, any number of rows.
//!
//! Plain loops only: a closure or an adaptor of the standard library that is not inlined is compiled without
//! the instruction set of its caller, and costs a factor of fifty.
//!
//! Codes that are small integers are multiplied as such (`int.rs`); this file does the floats. Order of the
//! sum, the same for every caller: within a unit of floats four accumulators take the columns in turn and are
//! added as (a0+a1)+(a2+a3); units are added in order, scaled; slices are added in order.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use super::codec::Codec;
use super::digits::{Arrangement, Digits};
use super::pack::Weights;
use crate::simd::{LANES, Simd, lanes, lanes_mut};

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
    /// Every row of x prepared by [`prepare`](super::prepare), `prepared_stride` apart; read only if the
    /// format has an [`Arrangement`].
    pub prepared: &'a [f32],
    /// Slots from one prepared row to the next.
    pub prepared_stride: usize,
    /// How they were prepared.
    pub arrangement: Option<Arrangement>,
}

impl<'a> Input<'a> {
    /// The same rows from a column on, which begins a group: what one head of a product per head multiplies.
    pub fn from_column(self, col: usize) -> Input<'a> {
        let prepared = self.arrangement.map_or(0, |arrangement| arrangement.len(col));
        Input { x: &self.x[col..], prepared: &self.prepared[prepared..], ..self }
    }

    /// Rows of x that the inputs `first..first + R` read; past the last, the last.
    #[inline(always)]
    pub(super) fn indices<const R: usize>(&self, first: usize) -> [usize; R] {
        let mut rows = [0; R];
        for r in 0..R {
            let i = (first + r).min(self.rows - 1);
            rows[r] = match self.index {
                Some(index) => index[i] as usize,
                None => i,
            };
        }
        rows
    }

    /// Columns `start..start + cols` of some rows of x.
    #[inline(always)]
    fn columns<const R: usize>(&self, rows: &[usize; R], start: usize, cols: usize) -> [&'a [f32]; R] {
        let mut x = [&[][..]; R];
        for r in 0..R {
            x[r] = &self.x[rows[r] * self.stride + start..][..cols];
        }
        x
    }

    /// Digits of the prepared rows.
    #[inline(always)]
    pub fn digits(&self) -> Digits {
        self.arrangement.map_or_else(Digits::default, |arrangement| arrangement.digits)
    }

    /// Header and digits of one group of some rows.
    #[inline(always)]
    pub(super) fn groups<const R: usize>(&self, rows: &[usize; R], group: usize) -> [&'a [f32]; R] {
        let len = self.arrangement.map_or(0, Arrangement::group_len);
        let mut x = [&[][..]; R];
        for r in 0..R {
            x[r] = &self.prepared[rows[r] * self.prepared_stride + group * len..][..len];
        }
        x
    }
}

/// Takes row of x (in the order of the input), first output and the values of one or more blocks of sixteen;
/// outputs past the matrix's rows are padding.
pub type Sink<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;

/// Arguments of [`matmul`](super::matmul).
pub struct Args<'a> {
    /// The matrix.
    pub w: Weights<'a>,
    /// Blocks of sixteen outputs.
    pub blocks: Range<usize>,
    /// Slices of columns.
    pub slices: Range<usize>,
    /// Rows of x.
    pub x: &'a Input<'a>,
}

/// Rows whose sums are kept in registers at a time.
pub(super) const TILE: usize = 4;
/// Above this many rows a unit is decoded once into a buffer instead of once per tile.
const DECODE_ROWS: usize = 8;
/// Rows per pass of the buffered kernel.
pub(super) const PASS: usize = 64;
/// Most columns of a unit.
pub(super) const UNIT_MAX: usize = 128;

#[inline(always)]
pub(super) fn run<S: Simd, C: Codec>(simd: S, args: Args<'_>, sink: &mut Sink<'_>) {
    let rows = args.x.rows;
    for block in args.blocks.clone() {
        if rows > DECODE_ROWS {
            let mut first = 0;
            while first < rows {
                pass::<S, C>(simd, &args, block, first..rows.min(first + PASS), sink);
                first += PASS;
            }
        } else if rows == 1 {
            tile::<S, C, 1>(simd, &args, block, 0, sink);
        } else {
            let mut first = 0;
            while first < rows {
                tile::<S, C, TILE>(simd, &args, block, first, sink);
                first += TILE;
            }
        }
    }
}

/// Up to `R` rows against one block, straight from the codes; rows past the last repeat it and are dropped.
#[inline(always)]
fn tile<S: Simd, C: Codec, const R: usize>(
    simd: S,
    args: &Args<'_>,
    block: usize,
    first: usize,
    sink: &mut Sink<'_>,
) {
    let layout = args.w.layout;
    let (unit_cols, unit_bytes) = (layout.unit_cols(), layout.unit_bytes());
    let rows = args.x.indices::<R>(first);
    let mut total = [simd.splat(0.0); R];
    for (nth, slice) in args.slices.clone().enumerate() {
        let bytes = &args.w.bytes[layout.range(slice, block)];
        let (mut start, slice_cols) = layout.slice(slice);
        let end = start + slice_cols;
        let mut part = [simd.splat(0.0); R];
        for unit in bytes.chunks(unit_bytes) {
            let cols = unit_cols.min(end - start);
            let x = args.x.columns(&rows, start, cols);
            let mut acc = [[simd.splat(0.0); 4]; R];
            for word in 0..cols / (4 * C::QUADS) {
                for quad in 0..C::QUADS {
                    let q = C::quad(simd, unit, cols, word, quad);
                    accumulate(simd, &mut acc, &x, 4 * (word * C::QUADS + quad), q);
                }
            }
            // A loop over constants: an index that depends on data would force the accumulators into memory.
            for j in 0..3 {
                let col = cols / 4 * 4 + j;
                if col < cols {
                    let q = C::rest(simd, unit, col);
                    for r in 0..R {
                        acc[r][j] = simd.fma(q, simd.splat(x[r][col]), acc[r][j]);
                    }
                }
            }
            let scale = C::scale(simd, unit, cols);
            for r in 0..R {
                part[r] = apply(simd, scale, fold(simd, acc[r]), part[r]);
            }
            start += cols;
        }
        for r in 0..R {
            total[r] = if nth == 0 { part[r] } else { simd.add(total[r], part[r]) };
        }
    }
    emit_tile(simd, args.x.rows, (first, block), &total, sink);
}

/// Up to [`PASS`] rows against one block, each unit decoded once.
#[inline(always)]
fn pass<S: Simd, C: Codec>(simd: S, args: &Args<'_>, block: usize, rows: Range<usize>, sink: &mut Sink<'_>) {
    let layout = args.w.layout;
    let (unit_cols, unit_bytes) = (layout.unit_cols(), layout.unit_bytes());
    let mut total = [0.0; PASS * LANES];
    for (nth, slice) in args.slices.clone().enumerate() {
        let bytes = &args.w.bytes[layout.range(slice, block)];
        let (mut start, slice_cols) = layout.slice(slice);
        let end = start + slice_cols;
        let mut part = [0.0; PASS * LANES];
        for unit in bytes.chunks(unit_bytes) {
            let cols = unit_cols.min(end - start);
            let mut decoded = [0.0; UNIT_MAX * LANES];
            decode::<S, C>(simd, unit, cols, &mut decoded);
            let unit = Decoded { q: &decoded[..cols * LANES], scale: C::scale(simd, unit, cols), start };
            let mut row = rows.start;
            while row < rows.end {
                dot::<S, TILE>(simd, args, &unit, row, &rows, &mut part);
                row += TILE;
            }
            start += cols;
        }
        for at in (0..rows.len() * LANES).step_by(LANES) {
            let part = simd.load(lanes(&part, at));
            let sum = if nth == 0 { part } else { simd.add(simd.load(lanes(&total, at)), part) };
            simd.store(sum, lanes_mut(&mut total, at));
        }
    }
    for row in rows.clone() {
        emit(simd, row, block, simd.load(lanes(&total, (row - rows.start) * LANES)), sink);
    }
}

/// Sixteen values of each column of a unit, one column after another.
#[inline(always)]
fn decode<S: Simd, C: Codec>(simd: S, unit: &[u8], cols: usize, out: &mut [f32]) {
    for word in 0..cols / (4 * C::QUADS) {
        for quad in 0..C::QUADS {
            let q = C::quad(simd, unit, cols, word, quad);
            for j in 0..4 {
                simd.store(q[j], lanes_mut(out, (4 * (word * C::QUADS + quad) + j) * LANES));
            }
        }
    }
    for col in cols / 4 * 4..cols {
        simd.store(C::rest(simd, unit, col), lanes_mut(out, col * LANES));
    }
}

/// A decoded unit.
struct Decoded<'a, S: Simd> {
    q: &'a [f32],
    scale: Option<S::F>,
    /// First column.
    start: usize,
}

/// Up to `R` rows from `first` on against a decoded unit; rows past the last repeat it and are dropped.
#[inline(always)]
fn dot<S: Simd, const R: usize>(
    simd: S,
    args: &Args<'_>,
    unit: &Decoded<'_, S>,
    first: usize,
    pass: &Range<usize>,
    part: &mut [f32],
) {
    let cols = unit.q.len() / LANES;
    let rows = args.x.indices::<R>(first);
    let x = args.x.columns(&rows, unit.start, cols);
    let mut acc = [[simd.splat(0.0); 4]; R];
    for i in 0..cols / 4 {
        let mut q = [simd.splat(0.0); 4];
        for j in 0..4 {
            q[j] = simd.load(lanes(unit.q, (4 * i + j) * LANES));
        }
        accumulate(simd, &mut acc, &x, 4 * i, q);
    }
    for j in 0..3 {
        let col = cols / 4 * 4 + j;
        if col < cols {
            let q = simd.load(lanes(unit.q, col * LANES));
            for r in 0..R {
                acc[r][j] = simd.fma(q, simd.splat(x[r][col]), acc[r][j]);
            }
        }
    }
    for r in 0..R {
        if first + r < pass.end {
            let at = (first + r - pass.start) * LANES;
            let updated = apply(simd, unit.scale, fold(simd, acc[r]), simd.load(lanes(part, at)));
            simd.store(updated, lanes_mut(part, at));
        }
    }
}

/// Four columns into the four accumulators of each row.
#[inline(always)]
fn accumulate<S: Simd, const R: usize>(
    simd: S,
    acc: &mut [[S::F; 4]; R],
    x: &[&[f32]; R],
    at: usize,
    q: [S::F; 4],
) {
    for r in 0..R {
        let x = &x[r][at..at + 4];
        for j in 0..4 {
            acc[r][j] = simd.fma(q[j], simd.splat(x[j]), acc[r][j]);
        }
    }
}

#[inline(always)]
fn fold<S: Simd>(simd: S, acc: [S::F; 4]) -> S::F {
    simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3]))
}

/// `y + scale · dot`.
#[inline(always)]
fn apply<S: Simd>(simd: S, scale: Option<S::F>, dot: S::F, y: S::F) -> S::F {
    match scale {
        Some(scale) => simd.fma(scale, dot, y),
        None => simd.add(y, dot),
    }
}

/// The sums of a tile whose first row is `first`; rows from `rows` on are dropped.
#[inline(always)]
pub(super) fn emit_tile<S: Simd, const R: usize>(
    simd: S,
    rows: usize,
    (first, block): (usize, usize),
    total: &[S::F; R],
    sink: &mut Sink<'_>,
) {
    for r in 0..R {
        if first + r < rows {
            emit(simd, first + r, block, total[r], sink);
        }
    }
}

#[inline(always)]
pub(super) fn emit<S: Simd>(simd: S, row: usize, block: usize, value: S::F, sink: &mut Sink<'_>) {
    let mut out = [0.0; LANES];
    simd.store(value, &mut out);
    sink(row, block * LANES, &out);
}
