//! Products with many rows on the tile unit: the sums of `int.rs` from tiles, then its f32 operations in its
//! order, so the bits are the same.
//!
//! Rows go in passes, blocks of outputs in batches, columns in strips of a few groups. x of a strip is
//! arranged in tiles once for a batch, the codes of a block once for a pass; the f32 sums of sixteen rows
//! stay in registers over a strip. What one unit has stored the other can load only after a hundred cycles,
//! so the products are one step ahead of the f32 operations, over the ends of tiles and blocks, and the codes
//! one block ahead of the products, unpacked and asked of memory a group at a time, in between.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

mod arrange;
mod scratch;

use std::ops::Range;

use self::arrange::{arrange, ask, ask_x, unpack};
use self::scratch::{CODE_TILES, Lines, ROW_TILES, Rows, SLOTS, STEPS, Scratch, strip_slots};
use super::codec::{Codes, UnitScales};
use super::cpu::{Args, Sink};
use super::int::{each, finish};
use crate::simd::tiles::{Sums, TILE_BYTES, TILE_ROWS, Tile, Tiles};
use crate::simd::{LANES, Simd};

/// From this many rows on the tile unit is used: the rows of one tile.
pub(super) const ROWS_MIN: usize = TILE_ROWS;
/// How many blocks ahead of the one at work memory is asked for.
const BLOCKS_AHEAD: usize = 3;

/// Columns that one tile holds of groups of `group` columns; what the tile unit is to be set up for.
pub fn tile_cols(group: usize) -> usize {
    group.min(TILE_BYTES)
}

/// Runs all blocks for all rows; the counterpart of `int::many`.
#[inline(always)]
pub fn run<S: Simd, T: Tiles, C: Codes, const D: usize>(
    simd: S,
    tiles: &mut T,
    args: &Args<'_>,
    sink: &mut Sink<'_>,
) {
    let mut scratch = Scratch::take();
    match args.w.layout.unit_cols() {
        16 if !C::BIASED => passes::<S, T, C, D, 4, 1>(simd, tiles, args, &mut scratch, sink),
        64 if C::BIASED => passes::<S, T, C, D, 16, 1>(simd, tiles, args, &mut scratch, sink),
        128 if C::BIASED => passes::<S, T, C, D, 32, 2>(simd, tiles, args, &mut scratch, sink),
        _ => passes::<S, T, C, D, 8, 1>(simd, tiles, args, &mut scratch, sink),
    }
    scratch.keep();
}

/// Part `i` of `parts` of `0..n`, as even as can be.
#[inline(always)]
fn part(n: usize, parts: usize, i: usize) -> Range<usize> {
    n * i / parts..n * (i + 1) / parts
}

/// Some blocks against the rows of a pass.
struct Batch<'a> {
    args: &'a Args<'a>,
    blocks: Range<usize>,
    rows: Range<usize>,
}

impl<'a> Batch<'a> {
    /// Tiles of rows.
    #[inline(always)]
    fn row_tiles(&self) -> usize {
        self.rows.len().div_ceil(TILE_ROWS)
    }

    /// Some groups of prepared row `i` of the pass, each `len` long.
    #[inline(always)]
    fn row(&self, i: usize, groups: &Range<usize>, len: usize) -> &'a [f32] {
        let x = self.args.x;
        let [row] = x.indices::<1>(self.rows.start + i);
        &x.prepared[row * x.prepared_stride + groups.start * len..][..groups.len() * len]
    }
}

/// A strip of columns of a batch.
struct Strip<'a> {
    batch: &'a Batch<'a>,
    /// Groups of the slice.
    groups: Range<usize>,
    /// First group and number of groups of the slice.
    slice: (usize, usize),
    /// Packed blocks of the batch in the slice.
    bytes: &'a [u8],
    block_bytes: usize,
    unit_bytes: usize,
    /// The first strip of the slice: sums start at zero.
    fresh: bool,
    /// The last strip of a slice that is not the first: sums are added to those of the slices before.
    added: bool,
    /// Which of [`Scratch::sums`] has the sums of the strips before.
    from: usize,
    /// Which gets them.
    into: usize,
}

impl Strip<'_> {
    /// Packed group of one block, if the slice has it.
    #[inline(always)]
    fn unit(&self, block: usize, group: usize) -> Option<&[u8]> {
        let first = block * self.block_bytes + group * self.unit_bytes;
        if group < self.slice.1 { Some(&self.bytes[first..][..self.unit_bytes]) } else { None }
    }

    /// Groups of prepared rows.
    #[inline(always)]
    fn columns(&self) -> Range<usize> {
        self.slice.0 + self.groups.start..self.slice.0 + self.groups.end
    }
}

/// All passes and batches, with groups of `Q` quads of columns in `H` halves.
#[inline(always)]
fn passes<S: Simd, T: Tiles, C: Codes, const D: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    args: &Args<'_>,
    scratch: &mut Scratch,
    sink: &mut Sink<'_>,
) {
    let row_tiles = args.x.rows.div_ceil(TILE_ROWS);
    let passes = row_tiles.div_ceil(ROW_TILES);
    for i in 0..passes {
        let pass = part(row_tiles, passes, i);
        let rows = pass.start * TILE_ROWS..args.x.rows.min(pass.end * TILE_ROWS);
        let batches = args.blocks.len().div_ceil(SLOTS / pass.len());
        for i in 0..batches {
            let blocks = part(args.blocks.len(), batches, i);
            let blocks = args.blocks.start + blocks.start..args.blocks.start + blocks.end;
            let batch = Batch { args, blocks, rows: rows.clone() };
            if args.slices.is_empty() {
                scratch.sums[0].iter_mut().for_each(|sums| sums.0 = [[0.0; LANES]; TILE_ROWS]);
            }
            for slice in args.slices.clone() {
                strips::<S, T, C, D, Q, H>(simd, tiles, &batch, slice, scratch);
            }
            emit_all(&batch, scratch, sink);
        }
    }
}

/// Sums of one slice of columns.
#[inline(always)]
fn strips<S: Simd, T: Tiles, C: Codes, const D: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    batch: &Batch<'_>,
    slice: usize,
    scratch: &mut Scratch,
) {
    let layout = batch.args.w.layout;
    let (start, cols) = layout.slice(slice);
    let (start, count) = (start / (4 * Q), cols / (4 * Q));
    let first = layout.range(slice, batch.blocks.start);
    let bytes = &batch.args.w.bytes[first.start..][..first.len() * batch.blocks.len()];
    let mut most = (strip_slots(D, H) / batch.row_tiles()).clamp(1, CODE_TILES / H);
    if most > STEPS && count > most {
        most -= most % STEPS;
    }
    let (strips, later) = (count.div_ceil(most), slice != batch.args.slices.start);
    for i in 0..strips {
        let strip = Strip {
            batch,
            groups: part(count, strips, i),
            slice: (start, count),
            bytes,
            block_bytes: first.len(),
            unit_bytes: layout.unit_bytes(),
            fresh: i == 0,
            added: later && i + 1 == strips,
            from: usize::from(later),
            into: usize::from(later && i + 1 < strips),
        };
        if i == 0 {
            for block in 0..BLOCKS_AHEAD.min(batch.blocks.len()) {
                for group in strip.groups.clone() {
                    ask(simd, &strip, block, group);
                }
            }
        }
        arrange::<C, D, Q, H>(&strip, scratch);
        multiply::<S, T, C, D, Q, H>(simd, tiles, &strip, scratch);
    }
}

/// What the steps of a strip work on.
struct Operands<'a, const D: usize, const H: usize> {
    digits: &'a [[[Tile; D]; H]],
    rows: &'a [Lines],
    codes: [&'a mut [[Tile; H]]; 2],
    scales: [&'a mut [Lines]; 2],
    products: &'a mut [[Sums; D]],
}

impl<'a, const D: usize, const H: usize> Operands<'a, D, H> {
    /// The operands in a scratch, and its f32 sums.
    #[inline(always)]
    fn new(scratch: &'a mut Scratch) -> (Operands<'a, D, H>, &'a mut [Vec<Lines>; 2]) {
        let Scratch { digits, rows, codes: [a, b], scales: [of_a, of_b], products, sums, .. } = scratch;
        let operands = Operands {
            digits: digits.all().as_chunks::<D>().0.as_chunks::<H>().0,
            rows: rows.all(),
            codes: [a.all_mut().as_chunks_mut::<H>().0, b.all_mut().as_chunks_mut::<H>().0],
            scales: [of_a.all_mut(), of_b.all_mut()],
            products: products.all_mut().as_chunks_mut::<D>().0,
        };
        (operands, sums)
    }

    /// Unpacks a group of a block.
    #[inline(always)]
    fn unpack<S: Simd, C: Codes, const Q: usize>(
        &mut self,
        simd: S,
        strip: &Strip<'_>,
        block: usize,
        g: usize,
    ) {
        if let Some(unit) = strip.unit(block, strip.groups.start + g) {
            let (codes, scales) = (&mut self.codes[block % 2][g], &mut self.scales[block % 2][g]);
            unpack::<S, C, Q, H>(simd, strip.batch.args.w.layout, unit, codes, scales);
        }
    }

    /// Has the products of a step made: of one group of a tile of rows and of a block.
    #[inline(always)]
    fn ask<T: Tiles>(&mut self, tiles: &mut T, step: usize, x: usize, (block, g): (usize, usize)) {
        tiles.products(&self.digits[x], &self.codes[block % 2][g], &mut self.products[step % STEPS]);
    }
}

/// The groups of a strip with all blocks and tiles of rows. A step is one tile of rows and one group of a
/// block; each product is asked for before the one before it is scaled and added.
#[inline(always)]
fn multiply<S: Simd, T: Tiles, C: Codes, const D: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    strip: &Strip<'_>,
    scratch: &mut Scratch,
) {
    let (blocks, row_tiles) = (strip.batch.blocks.len(), strip.batch.row_tiles());
    let (mut operands, sums) = Operands::<D, H>::new(scratch);
    for g in 0..strip.groups.len() {
        operands.unpack::<S, C, Q>(simd, strip, 0, g);
    }
    let mut step = 0;
    operands.ask(tiles, step, 0, (0, 0));
    for block in 0..blocks {
        for tile in 0..row_tiles {
            let slot = block * row_tiles + tile;
            ask_x::<S, D, Q>(simd, strip, blocks * row_tiles, slot);
            let mut acc = [simd.splat(0.0); TILE_ROWS];
            if !strip.fresh {
                let sums = &sums[strip.from][slot].0;
                for r in 0..TILE_ROWS {
                    acc[r] = simd.load(&sums[r]);
                }
            }
            steps::<S, T, C, D, Q, H>(simd, tiles, strip, &mut operands, (block, tile), &mut step, &mut acc);
            if strip.added {
                let sums = &sums[0][slot].0;
                for r in 0..TILE_ROWS {
                    acc[r] = simd.add(simd.load(&sums[r]), acc[r]);
                }
            }
            let sums = &mut sums[strip.into][slot].0;
            for r in 0..TILE_ROWS {
                simd.store(acc[r], &mut sums[r]);
            }
        }
    }
}

/// The steps of one block and tile of rows. With the first tile the codes of the next block are unpacked, and
/// memory is asked for those of a later one.
#[inline(always)]
fn steps<S: Simd, T: Tiles, C: Codes, const D: usize, const Q: usize, const H: usize>(
    simd: S,
    tiles: &mut T,
    strip: &Strip<'_>,
    operands: &mut Operands<'_, D, H>,
    (block, tile): (usize, usize),
    step: &mut usize,
    acc: &mut [S::F; TILE_ROWS],
) {
    let (blocks, row_tiles) = (strip.batch.blocks.len(), strip.batch.row_tiles());
    let groups = strip.groups.len();
    let live = strip.batch.rows.len() - tile * TILE_ROWS;
    for g in 0..groups {
        if tile == 0 {
            // After the last block comes the first one of the next strip.
            let (ahead, later) = if block + BLOCKS_AHEAD < blocks {
                (block + BLOCKS_AHEAD, 0)
            } else {
                ((block + BLOCKS_AHEAD) % blocks, groups)
            };
            ask(simd, strip, ahead, strip.groups.start + later + g);
            if block + 1 < blocks {
                operands.unpack::<S, C, Q>(simd, strip, block + 1, g);
            }
        }
        let (x, at) = if g + 1 < groups {
            (tile * groups + g + 1, (block, g + 1))
        } else if tile + 1 < row_tiles {
            ((tile + 1) * groups, (block, 0))
        } else {
            (0, (block + 1, 0))
        };
        if at.0 < blocks {
            operands.ask(tiles, *step + 1, x, at);
        }
        let [scale, bias] = operands.scales[block % 2][g].scales();
        let scales = UnitScales { scale: simd.load(scale), bias: simd.load(bias) };
        let slot = tile * groups + g;
        let (rows, products) = (operands.rows[slot].rows(slot), &operands.products[*step % STEPS]);
        accumulate::<S, C, D>(simd, &scales, rows, products, live, acc);
        *step += 1;
    }
}

/// Sums of one group of up to sixteen rows, scaled and added.
#[inline(always)]
#[allow(clippy::out_of_bounds_indexing, reason = "`each` drops what is past the count")]
fn accumulate<S: Simd, C: Codes, const D: usize>(
    simd: S,
    scales: &UnitScales<S>,
    rows: &Rows,
    sums: &[Sums; D],
    live: usize,
    acc: &mut [S::F; TILE_ROWS],
) {
    if S::UNROLL {
        each!(ROW below TILE_ROWS, {
            if ROW < 4 || live > ROW / 4 * 4 {
                acc[ROW] = accumulate_row::<S, C, D>(simd, scales, rows, sums, ROW, acc[ROW]);
            }
        });
    } else {
        for row in 0..TILE_ROWS {
            acc[row] = accumulate_row::<S, C, D>(simd, scales, rows, sums, row, acc[row]);
        }
    }
}

#[inline(always)]
fn accumulate_row<S: Simd, C: Codes, const D: usize>(
    simd: S,
    scales: &UnitScales<S>,
    rows: &Rows,
    sums: &[Sums; D],
    row: usize,
    y: S::F,
) -> S::F {
    let mut dots = [simd.splat_i(0); D];
    for digit in 0..D {
        dots[digit] = simd.load_i(&sums[digit].0[row]);
        if C::OFFSET != 0 {
            dots[digit] = simd.add_i(simd.splat_i(rows[2 + digit][row].to_bits() as i32), dots[digit]);
        }
    }
    finish::<S, C, D>(simd, scales, dots, [rows[0][row], rows[1][row]], y)
}

/// Hands on all sums of a batch, a row at a time.
#[inline(always)]
fn emit_all(batch: &Batch<'_>, scratch: &mut Scratch, sink: &mut Sink<'_>) {
    let (sums, blocks, row_tiles) = (&scratch.sums[0], batch.blocks.len(), batch.row_tiles());
    for (i, row) in batch.rows.clone().enumerate() {
        let (tile, r) = (i / TILE_ROWS, i % TILE_ROWS);
        let values = scratch.row.as_chunks_mut::<LANES>().0[..blocks].iter_mut();
        for (values, sums) in values.zip(sums[tile..].iter().step_by(row_tiles)) {
            *values = sums.0[r];
        }
        sink(row, batch.blocks.start * LANES, &scratch.row[..blocks * LANES]);
    }
}
