//! Products with many rows on the tile unit: the sums of `int.rs` from tiles, then its f32 operations in its order,
//! so the bits are the same.
//!
//! Rows go in passes, blocks of outputs in batches, columns in strips of a few groups. x of a strip is arranged in
//! tiles once for a batch, the codes of a block once for a pass; the f32 sums of sixteen rows stay in registers over
//! a strip. What one unit has stored the other can load only after a hundred cycles, so the products are one tile
//! ahead of the f32 operations, and the codes one block ahead of the products.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use super::codec::{Codes, UnitScales};
use super::cpu::{Args, PASS, Sink};
use super::digits::{Digits, HEADER};
use super::int::{each, factors, finish, offset};
use super::pack::Layout;
use crate::simd::tiles::{Sums, TILE_BYTES, TILE_ROWS, Tile, Tiles};
use crate::simd::{LANES, Simd, lanes, lanes_mut};

/// From this many rows on the tile unit is used: the rows of one tile.
pub(super) const ROWS_MIN: usize = TILE_ROWS;
/// Tiles of rows in a pass.
const ROW_TILES: usize = PASS / TILE_ROWS;
/// Sums of a batch, in tiles of rows × blocks: 32 KiB, little enough to be zeroed for every call.
const SLOTS: usize = 32;
/// f32 of one slot.
const SLOT: usize = TILE_ROWS * LANES;
/// How many blocks ahead of the one at work memory is asked for.
const BLOCKS_AHEAD: usize = 4;

/// Columns that one tile holds of groups of `group` columns; what the tile unit is to be set up for.
pub(super) fn tile_cols(group: usize) -> usize {
    group.min(TILE_BYTES)
}

/// Runs all blocks for all rows; the counterpart of `int::run`.
#[inline(always)]
pub(super) fn run<S: Simd, T: Tiles, C: Codes>(simd: S, tiles: &mut T, args: &Args<'_>, sink: &mut Sink<'_>) {
    // Strips as long as x of a pass and the codes of two blocks fit the first-level cache.
    match args.x.digits() {
        Digits::One => with_digits::<S, T, C, 1, 4>(simd, tiles, args, sink),
        Digits::Two => with_digits::<S, T, C, 2, 2>(simd, tiles, args, sink),
        Digits::Three => with_digits::<S, T, C, 3, 2>(simd, tiles, args, sink),
    }
}

#[inline(always)]
fn with_digits<S: Simd, T: Tiles, C: Codes, const D: usize, const G: usize>(
    simd: S,
    tiles: &mut T,
    args: &Args<'_>,
    sink: &mut Sink<'_>,
) {
    match args.w.layout.unit_cols() {
        16 if !C::BIASED => passes::<S, T, C, D, G, 4, 1>(simd, tiles, args, sink),
        64 if C::BIASED => passes::<S, T, C, D, G, 16, 1>(simd, tiles, args, sink),
        128 if C::BIASED => passes::<S, T, C, D, G, 32, 2>(simd, tiles, args, sink),
        _ => passes::<S, T, C, D, G, 8, 1>(simd, tiles, args, sink),
    }
}

/// One group of sixteen rows of x.
#[derive(Clone, Copy)]
struct Rows<const D: usize, const H: usize> {
    digits: [[Tile; D]; H],
    /// What a step of the product is worth but for the scale of the codes.
    factors: [f32; TILE_ROWS],
    /// Sums of the integers.
    sums: [f32; TILE_ROWS],
    /// What the offset of the codes adds to the sums.
    offsets: [[i32; TILE_ROWS]; D],
}

/// One group of sixteen outputs.
#[derive(Clone, Copy)]
struct Unit<const H: usize> {
    codes: [Tile; H],
    scale: [f32; LANES],
    bias: [f32; LANES],
}

/// A strip of up to `G` groups.
struct Strip<const D: usize, const H: usize, const G: usize> {
    /// The rows of a pass.
    x: [[Rows<D, H>; G]; ROW_TILES],
    /// A block and the next one.
    units: [[Unit<H>; G]; 2],
    /// Products of one tile of rows while those of another are made.
    sums: [[Sums; D]; 2],
}

/// Some blocks against the rows of a pass.
struct Batch<'a> {
    args: &'a Args<'a>,
    blocks: Range<usize>,
    rows: Range<usize>,
}

impl Batch<'_> {
    /// Tiles of rows.
    #[inline(always)]
    fn row_tiles(&self) -> usize {
        self.rows.len().div_ceil(TILE_ROWS)
    }
}

/// The packed blocks of a batch in one slice.
struct Blocks<'a> {
    bytes: &'a [u8],
    block_bytes: usize,
    unit_bytes: usize,
}

impl<'a> Blocks<'a> {
    #[inline(always)]
    fn new(batch: &Batch<'a>, slice: usize) -> Blocks<'a> {
        let layout = batch.args.w.layout;
        let first = layout.range(slice, batch.blocks.start);
        let bytes = &batch.args.w.bytes[first.start..][..first.len() * batch.blocks.len()];
        Blocks { bytes, block_bytes: first.len(), unit_bytes: layout.unit_bytes() }
    }

    /// Some groups of one block.
    #[inline(always)]
    fn units(&self, block: usize, groups: &Range<usize>) -> &'a [u8] {
        let first = block * self.block_bytes + groups.start * self.unit_bytes;
        &self.bytes[first..][..groups.len() * self.unit_bytes]
    }
}

/// All passes and batches, with groups of `Q` quads of columns in `H` halves. Needs about 150 KiB of stack.
#[inline(always)]
fn passes<S: Simd, T: Tiles, C: Codes, const D: usize, const G: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    args: &Args<'_>,
    sink: &mut Sink<'_>,
) {
    let rows = Rows {
        digits: [[Tile::ZERO; D]; H],
        factors: [0.0; TILE_ROWS],
        sums: [0.0; TILE_ROWS],
        offsets: [[0; TILE_ROWS]; D],
    };
    let unit = Unit { codes: [Tile::ZERO; H], scale: [0.0; LANES], bias: [0.0; LANES] };
    let mut strip = Strip { x: [[rows; G]; ROW_TILES], units: [[unit; G]; 2], sums: [[Sums::ZERO; D]; 2] };
    // Written by the first slice; without one the sums are zero. The others go through `part`.
    let mut total = [0.0; SLOTS * SLOT];
    let mut part = [0.0; SLOTS * SLOT];
    let mut first = 0;
    while first < args.x.rows {
        let rows = first..args.x.rows.min(first + PASS);
        first = rows.end;
        let most = SLOTS / rows.len().div_ceil(TILE_ROWS);
        let size = args.blocks.len().div_ceil(args.blocks.len().div_ceil(most).max(1));
        let mut block = args.blocks.start;
        while block < args.blocks.end {
            let batch = Batch { args, blocks: block..args.blocks.end.min(block + size), rows: rows.clone() };
            block = batch.blocks.end;
            for (nth, index) in args.slices.clone().enumerate() {
                let sums = if nth == 0 { &mut total } else { &mut part };
                slice::<S, T, C, D, G, Q, H>(simd, tiles, &batch, index, &mut strip, sums);
                let added = if nth == 0 { 0 } else { batch.blocks.len() * batch.row_tiles() * SLOT };
                for at in (0..added).step_by(LANES) {
                    let sum = simd.add(simd.load(lanes(&total, at)), simd.load(lanes(&part, at)));
                    simd.store(sum, lanes_mut(&mut total, at));
                }
            }
            emit_all(&batch, &total, sink);
        }
    }
}

/// Sums of one slice of columns into `part`.
#[inline(always)]
fn slice<S: Simd, T: Tiles, C: Codes, const D: usize, const G: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    batch: &Batch<'_>,
    slice: usize,
    strip: &mut Strip<D, H, G>,
    part: &mut [f32; SLOTS * SLOT],
) {
    let layout = batch.args.w.layout;
    let (start, cols) = layout.slice(slice);
    let (start, end) = (start / (4 * Q), cols / (4 * Q));
    let (packed, blocks) = (Blocks::new(batch, slice), batch.blocks.len());
    let mut first = 0;
    while first < end {
        let groups = first..end.min(first + G);
        arrange::<C, D, G, Q, H>(batch, start + first..start + groups.end, &mut strip.x);
        unpack::<S, C, G, Q, H>(simd, layout, (&packed, 0, &groups), &mut strip.units[0]);
        for block in 0..blocks {
            let (ahead, later) = ((block + BLOCKS_AHEAD) % blocks, (block + BLOCKS_AHEAD) / blocks * G);
            let wanted = end.min(groups.start + later)..end.min(groups.end + later);
            simd.prefetch(packed.units(ahead, &wanted), 0);
            // The first product is under way while the next block's codes are unpacked.
            let Strip { x, units, sums } = &mut *strip;
            tiles.products(&x[0][0].digits, &units[block % 2][0].codes, &mut sums[0]);
            if block + 1 < blocks {
                let next = (&packed, block + 1, &groups);
                unpack::<S, C, G, Q, H>(simd, layout, next, &mut units[(block + 1) % 2]);
            }
            let stride = batch.row_tiles() * SLOT;
            let units = &units[block % 2][..groups.len()];
            let part = &mut part[block * stride..][..stride];
            multiply::<S, T, C, D, G, H>(simd, tiles, (x, units, sums), first == 0, part);
        }
        first = groups.end;
    }
}

/// Digits of some groups of the rows of a pass, each digit in tiles of its own.
#[inline(always)]
fn arrange<C: Codes, const D: usize, const G: usize, const Q: usize, const H: usize>(
    batch: &Batch<'_>,
    groups: Range<usize>,
    tiles: &mut [[Rows<D, H>; G]; ROW_TILES],
) {
    let (x, len) = (batch.args.x, HEADER + Q * D);
    for i in 0..batch.rows.len() {
        let [row] = x.indices::<1>(batch.rows.start + i);
        let x = &x.prepared[row * x.prepared_stride + groups.start * len..][..groups.len() * len];
        let r = i % TILE_ROWS;
        for (x, rows) in x.chunks_exact(len).zip(&mut tiles[i / TILE_ROWS]) {
            [rows.factors[r], rows.sums[r]] = factors::<C>(x);
            for digit in 0..D {
                rows.offsets[digit][r] = offset::<C>(x, digit);
                for half in 0..H {
                    let words = &x[HEADER + digit * Q + half * (Q / H)..][..Q / H];
                    let bytes = rows.digits[half][digit].0[r].as_chunks_mut::<4>().0;
                    for (word, bytes) in words.iter().zip(bytes) {
                        *bytes = word.to_bits().to_le_bytes();
                    }
                }
            }
        }
    }
}

/// Codes of some groups of a block.
#[inline(always)]
fn unpack<S: Simd, C: Codes, const G: usize, const Q: usize, const H: usize>(
    simd: S,
    layout: &Layout,
    packed: (&Blocks<'_>, usize, &Range<usize>),
    units: &mut [Unit<H>; G],
) {
    let (packed, block, groups) = packed;
    let bytes = packed.units(block, groups);
    for (g, unit) in units.iter_mut().enumerate().take(groups.len()) {
        let bytes = &bytes[g * packed.unit_bytes..][..packed.unit_bytes];
        for q in 0..Q {
            let steps = 8 / C::PLANE;
            let codes = C::bytes(simd, bytes, 4 * Q, q / steps, q % steps);
            simd.store_u(codes, &mut unit.codes[q / (Q / H)].0[q % (Q / H)]);
        }
        let scales = UnitScales::read_cols::<C>(simd, layout, bytes, 4 * Q);
        simd.store(scales.scale, &mut unit.scale);
        simd.store(scales.bias, &mut unit.bias);
    }
}

/// The groups of a strip of one block with all tiles of rows; the first product is already made. Each product is
/// asked for before the one before it is scaled and added.
#[inline(always)]
fn multiply<S: Simd, T: Tiles, C: Codes, const D: usize, const G: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    (x, units, sums): (&[[Rows<D, H>; G]; ROW_TILES], &[Unit<H>], &mut [[Sums; D]; 2]),
    fresh: bool,
    part: &mut [f32],
) {
    let parts = part.as_chunks_mut::<SLOT>().0;
    let (count, mut step) = (parts.len(), 0);
    for (tile, part) in parts.iter_mut().enumerate() {
        let mut acc = [simd.splat(0.0); TILE_ROWS];
        if !fresh {
            for r in 0..TILE_ROWS {
                acc[r] = simd.load(lanes(part, r * LANES));
            }
        }
        for (g, unit) in units.iter().enumerate() {
            let (next, group) = if g + 1 < units.len() { (tile, g + 1) } else { (tile + 1, 0) };
            if next < count {
                let sums = &mut sums[(step + 1) % 2];
                tiles.products(&x[next][group].digits, &units[group].codes, sums);
            }
            let scales = UnitScales { scale: simd.load(&unit.scale), bias: simd.load(&unit.bias) };
            accumulate::<S, C, D, H>(simd, &scales, &x[tile][g], &sums[step % 2], &mut acc);
            step += 1;
        }
        for r in 0..TILE_ROWS {
            simd.store(acc[r], lanes_mut(part, r * LANES));
        }
    }
}

/// Sixteen rows' sums of one group, scaled and added.
#[inline(always)]
#[allow(clippy::out_of_bounds_indexing, reason = "`each` drops what is past the count")]
fn accumulate<S: Simd, C: Codes, const D: usize, const H: usize>(
    simd: S,
    scales: &UnitScales<S>,
    rows: &Rows<D, H>,
    sums: &[Sums; D],
    acc: &mut [S::F; TILE_ROWS],
) {
    if S::UNROLL {
        each!(ROW below TILE_ROWS, {
            acc[ROW] = accumulate_row::<S, C, D, H>(simd, scales, rows, sums, ROW, acc[ROW]);
        });
    } else {
        for row in 0..TILE_ROWS {
            acc[row] = accumulate_row::<S, C, D, H>(simd, scales, rows, sums, row, acc[row]);
        }
    }
}

#[inline(always)]
fn accumulate_row<S: Simd, C: Codes, const D: usize, const H: usize>(
    simd: S,
    scales: &UnitScales<S>,
    rows: &Rows<D, H>,
    sums: &[Sums; D],
    row: usize,
    y: S::F,
) -> S::F {
    let mut dots = [simd.splat_i(0); D];
    for digit in 0..D {
        dots[digit] = simd.load_i(&sums[digit].0[row]);
        if C::OFFSET != 0 {
            dots[digit] = simd.add_i(simd.splat_i(rows.offsets[digit][row]), dots[digit]);
        }
    }
    finish::<S, C, D>(simd, scales, dots, [rows.factors[row], rows.sums[row]], y)
}

/// Hands on all sums of a batch, a row at a time.
#[inline(always)]
fn emit_all(batch: &Batch<'_>, sums: &[f32; SLOTS * SLOT], sink: &mut Sink<'_>) {
    let mut values = [0.0; SLOTS * LANES];
    let values = &mut values[..batch.blocks.len() * LANES];
    for (r, row) in batch.rows.clone().enumerate() {
        for (i, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
            *values = *lanes(sums, i * batch.row_tiles() * SLOT + r * LANES);
        }
        sink(row, batch.blocks.start * LANES, values);
    }
}

#[cfg(test)]
mod cases;
