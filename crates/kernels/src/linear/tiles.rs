//! Products with many rows on the tile unit: the sums of `int.rs` from tiles, then its f32 operations in its order,
//! so the bits are the same.
//!
//! A unit of codes becomes unsigned tiles once for all rows of a pass. The digits of x become signed tiles once per
//! group and batch of blocks: arranging them costs as much as one or two products with them, so a batch is made as
//! large as its partial sums may be (`SLOTS`).

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use super::codec::{Codes, UnitScales};
use super::cpu::{Args, PASS, Sink, emit};
use super::digits::{Digits, HEADER};
use super::int::{AHEAD, finish, start};
use crate::simd::tiles::{Sums, TILE_BYTES, TILE_ROWS, Tile, Tiles};
use crate::simd::{LANES, Simd, lanes, lanes_mut};

/// From this many rows on the tile unit is used: the rows of one tile.
pub(super) const ROWS_MIN: usize = TILE_ROWS;
/// Tiles of rows in a pass.
const ROW_TILES: usize = PASS / TILE_ROWS;
/// Partial sums of a batch, in tiles of rows × blocks: 32 KiB, little enough to be zeroed for every call.
const SLOTS: usize = 32;
/// f32 of one slot.
const SLOT: usize = TILE_ROWS * LANES;

/// Columns that one tile holds of groups of `group` columns; what the tile unit is to be set up for.
pub(super) fn tile_cols(group: usize) -> usize {
    group.min(TILE_BYTES)
}

/// Runs all blocks for all rows; the counterpart of `int::run`.
#[inline(always)]
pub(super) fn run<S: Simd, T: Tiles, C: Codes>(simd: S, tiles: &mut T, args: &Args<'_>, sink: &mut Sink<'_>) {
    match args.x.digits() {
        Digits::One => with_digits::<S, T, C, 1>(simd, tiles, args, sink),
        Digits::Two => with_digits::<S, T, C, 2>(simd, tiles, args, sink),
        Digits::Three => with_digits::<S, T, C, 3>(simd, tiles, args, sink),
    }
}

#[inline(always)]
fn with_digits<S: Simd, T: Tiles, C: Codes, const D: usize>(
    simd: S,
    tiles: &mut T,
    args: &Args<'_>,
    sink: &mut Sink<'_>,
) {
    match args.w.layout.unit_cols() {
        16 => passes::<S, T, C, D, 4, 1>(simd, tiles, args, sink),
        32 => passes::<S, T, C, D, 8, 1>(simd, tiles, args, sink),
        64 => passes::<S, T, C, D, 16, 1>(simd, tiles, args, sink),
        _ => passes::<S, T, C, D, 32, 2>(simd, tiles, args, sink),
    }
}

/// What the products of one group need at hand.
struct Scratch<const D: usize, const H: usize> {
    /// Digits of the rows of a pass.
    x: [[[Tile; D]; H]; ROW_TILES],
    /// Headers of the same rows.
    headers: [[f32; HEADER]; PASS],
    /// Codes of a unit.
    codes: [Tile; H],
    /// Sums of two tiles of rows, so that the unit multiplies one while the other is finished.
    sums: [[Sums; D]; 2],
}

/// Some blocks against the rows of a pass.
struct Batch<'a> {
    args: &'a Args<'a>,
    blocks: Range<usize>,
    rows: Range<usize>,
}

impl Batch<'_> {
    /// f32 of the sums of one block.
    #[inline(always)]
    fn stride(&self) -> usize {
        self.rows.len().div_ceil(TILE_ROWS) * SLOT
    }
}

/// All passes and batches, with groups of `Q` quads of columns in `H` halves. Needs about 100 KiB of stack.
#[inline(always)]
fn passes<S: Simd, T: Tiles, C: Codes, const D: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    args: &Args<'_>,
    sink: &mut Sink<'_>,
) {
    let mut scratch = Scratch::<D, H> {
        x: [[[Tile::ZERO; D]; H]; ROW_TILES],
        headers: [[0.0; HEADER]; PASS],
        codes: [Tile::ZERO; H],
        sums: [[Sums::ZERO; D]; 2],
    };
    let mut part = [0.0; SLOTS * SLOT];
    let mut first = 0;
    while first < args.x.rows {
        let rows = first..args.x.rows.min(first + PASS);
        let most = SLOTS / rows.len().div_ceil(TILE_ROWS);
        let mut block = args.blocks.start;
        while block < args.blocks.end {
            let blocks = block..args.blocks.end.min(block + most);
            block = blocks.end;
            let batch = Batch { args, blocks, rows: rows.clone() };
            if args.slices.len() == 1 {
                slice::<S, T, C, D, Q, H>(simd, tiles, &batch, args.slices.start, &mut scratch, &mut part);
                emit_all(simd, &batch, &part, sink);
                continue;
            }
            let mut total = [0.0; SLOTS * SLOT];
            for index in args.slices.clone() {
                slice::<S, T, C, D, Q, H>(simd, tiles, &batch, index, &mut scratch, &mut part);
                for at in (0..batch.blocks.len() * batch.stride()).step_by(LANES) {
                    let sum = simd.add(simd.load(lanes(&total, at)), simd.load(lanes(&part, at)));
                    simd.store(sum, lanes_mut(&mut total, at));
                }
            }
            emit_all(simd, &batch, &total, sink);
        }
        first = rows.end;
    }
}

/// Sums of one slice of columns into `part`.
#[inline(always)]
fn slice<S: Simd, T: Tiles, C: Codes, const D: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    batch: &Batch<'_>,
    slice: usize,
    scratch: &mut Scratch<D, H>,
    part: &mut [f32; SLOTS * SLOT],
) {
    let layout = batch.args.w.layout;
    let (unit_bytes, stride) = (layout.unit_bytes(), batch.stride());
    let (start, cols) = layout.slice(slice);
    let first_block = layout.range(slice, batch.blocks.start);
    let block_bytes = first_block.len();
    let bytes = &batch.args.w.bytes[first_block.start..][..block_bytes * batch.blocks.len()];
    let part = &mut part[..batch.blocks.len() * stride];
    part.fill(0.0);
    for i in 0..cols / (4 * Q) {
        arrange::<D, Q, H>(batch, start / (4 * Q) + i, scratch);
        for block in 0..batch.blocks.len() {
            let unit = &bytes[block * block_bytes + i * unit_bytes..][..unit_bytes];
            let part = &mut part[block * stride..][..stride];
            simd.prefetch(unit, AHEAD);
            for q in 0..Q {
                let steps = 8 / C::PLANE;
                let codes = C::bytes(simd, unit, 4 * Q, q / steps, q % steps);
                simd.store_u(codes, &mut scratch.codes[q / (Q / H)].0[q % (Q / H)]);
            }
            let scales = UnitScales::read::<C>(simd, layout, unit);
            multiply::<S, T, C, D, H>(simd, tiles, &scales, batch.rows.len(), scratch, part);
        }
    }
}

/// Digits of one group of the rows of a pass, each digit in tiles of its own, and their headers.
#[inline(always)]
fn arrange<const D: usize, const Q: usize, const H: usize>(
    batch: &Batch<'_>,
    group: usize,
    scratch: &mut Scratch<D, H>,
) {
    let (x, len) = (batch.args.x, HEADER + Q * D);
    for i in 0..batch.rows.len() {
        let [row] = x.indices::<1>(batch.rows.start + i);
        let x = &x.prepared[row * x.prepared_stride + group * len..][..len];
        scratch.headers[i].copy_from_slice(&x[..HEADER]);
        for half in 0..H {
            for digit in 0..D {
                let words = &x[HEADER + digit * Q + half * (Q / H)..][..Q / H];
                let row = &mut scratch.x[i / TILE_ROWS][half][digit].0[i % TILE_ROWS];
                for (word, bytes) in words.iter().zip(row.as_chunks_mut::<4>().0) {
                    *bytes = word.to_bits().to_le_bytes();
                }
            }
        }
    }
}

/// The codes of a unit with the first `rows` rows: products of a tile of rows while the one before is finished.
#[inline(always)]
fn multiply<S: Simd, T: Tiles, C: Codes, const D: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    scales: &UnitScales<S>,
    rows: usize,
    scratch: &mut Scratch<D, H>,
    part: &mut [f32],
) {
    let row_tiles = rows.div_ceil(TILE_ROWS);
    for tile in 0..=row_tiles {
        if tile < row_tiles {
            tiles.products(&scratch.x[tile], &scratch.codes, &mut scratch.sums[tile % 2]);
        }
        if tile == 0 {
            continue;
        }
        let first = (tile - 1) * TILE_ROWS;
        let sums = &scratch.sums[(tile - 1) % 2];
        for r in 0..TILE_ROWS.min(rows - first) {
            let (header, at) = (&scratch.headers[first + r], (first + r) * LANES);
            let mut acc = start::<S, C, D>(simd, header);
            for digit in 0..D {
                acc[digit] = simd.add_i(acc[digit], simd.load_i(&sums[digit].0[r]));
            }
            let y = finish::<S, C, D>(simd, scales, acc, header, simd.load(lanes(part, at)));
            simd.store(y, lanes_mut(part, at));
        }
    }
}

/// Hands on all sums of a batch. They are added to zero, as the sum over slices begins with it: no output is -0.
#[inline(always)]
fn emit_all<S: Simd>(simd: S, batch: &Batch<'_>, sums: &[f32; SLOTS * SLOT], sink: &mut Sink<'_>) {
    for (i, block) in batch.blocks.clone().enumerate() {
        for (r, row) in batch.rows.clone().enumerate() {
            let sum = simd.load(lanes(sums, i * batch.stride() + r * LANES));
            emit(simd, row, block, simd.add(simd.splat(0.0), sum), sink);
        }
    }
}

#[cfg(test)]
mod cases;
