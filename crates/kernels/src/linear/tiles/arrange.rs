//! What products on tiles need of x and of the codes, brought into their shape, and asked of memory
//! beforehand.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use super::scratch::{Lines, Scratch};
use super::{Strip, part};
use crate::linear::codec::{Codes, UnitScales};
use crate::linear::digits::HEADER;
use crate::linear::int::{each, factors, offset};
use crate::linear::pack::Layout;
use crate::simd::tiles::{TILE_BYTES, TILE_ROWS, Tile};
use crate::simd::{LANES, Simd};

/// Asks memory for a group of a block.
#[inline(always)]
pub(super) fn ask<S: Simd>(simd: S, strip: &Strip<'_>, block: usize, group: usize) {
    if let Some(unit) = strip.unit(block, group) {
        simd.prefetch(unit, 0);
    }
}

/// Digits of the groups of a strip, each digit in tiles of its own. What follows the last row stays as it
/// was.
#[inline(always)]
pub(super) fn arrange<C: Codes, const D: usize, const Q: usize, const H: usize>(
    strip: &Strip<'_>,
    scratch: &mut Scratch,
) {
    let (batch, columns, len) = (strip.batch, strip.columns(), HEADER + Q * D);
    let tiles = scratch.digits.all_mut().as_chunks_mut::<D>().0.as_chunks_mut::<H>().0;
    let lines = scratch.rows.all_mut();
    for i in 0..batch.rows.len() {
        let (r, first, x) = (i % TILE_ROWS, i / TILE_ROWS * columns.len(), batch.row(i, &columns, len));
        for g in 0..columns.len() {
            let (x, tiles) = (&x[g * len..][..len], &mut tiles[first + g]);
            let rows = lines[first + g].rows_mut(first + g);
            [rows[0][r], rows[1][r]] = factors::<C>(x);
            for digit in 0..D {
                if C::OFFSET != 0 {
                    rows[2 + digit][r] = f32::from_bits(offset::<C>(x, digit) as u32);
                }
                for half in 0..H {
                    let words = &x[HEADER + digit * Q + half * (Q / H)..][..Q / H];
                    copy(words, &mut tiles[half][digit].0[r]);
                }
            }
        }
    }
}

/// Asks memory for a share of what [`arrange`] needs for the next strip.
#[inline(always)]
pub(super) fn ask_x<S: Simd, const D: usize, const Q: usize>(
    simd: S,
    strip: &Strip<'_>,
    shares: usize,
    i: usize,
) {
    let (columns, len) = (strip.columns(), HEADER + Q * D);
    let all = strip.batch.args.w.layout.cols / (4 * Q);
    let next = columns.end..all.min(columns.end + columns.len());
    for i in part(strip.batch.rows.len(), shares, i) {
        simd.prefetch(strip.batch.row(i, &next, len), 0);
    }
}

/// Codes and scales of one group of a block.
#[inline(always)]
#[allow(clippy::out_of_bounds_indexing, reason = "`each` drops what is past the count")]
pub(super) fn unpack<S: Simd, C: Codes, const Q: usize, const H: usize>(
    simd: S,
    layout: &Layout,
    bytes: &[u8],
    codes: &mut [Tile; H],
    scales: &mut Lines,
) {
    // A length that is a constant: nothing is checked.
    let packed = &bytes[..LANES * 4 * Q * C::BITS / 8];
    if S::UNROLL {
        each!(QUAD below Q, {
            simd.store_u(four::<S, C, Q>(simd, packed, QUAD), &mut codes[QUAD / (Q / H)].0[QUAD % (Q / H)]);
        });
    } else {
        for q in 0..Q {
            simd.store_u(four::<S, C, Q>(simd, packed, q), &mut codes[q / (Q / H)].0[q % (Q / H)]);
        }
    }
    let read = UnitScales::read::<C>(simd, layout, bytes, 4 * Q);
    let [scale, bias] = scales.scales_mut();
    simd.store(read.scale, scale);
    simd.store(read.bias, bias);
}

/// Quad `q` of the columns of a unit.
#[inline(always)]
fn four<S: Simd, C: Codes, const Q: usize>(simd: S, packed: &[u8], q: usize) -> S::U {
    let steps = 8 / C::PLANE;
    C::bytes(simd, packed, 4 * Q, q / steps, q % steps)
}

/// The bytes of some words. All of a line are read before the first is written: word by word, since the
/// compiler cannot know that the two do not overlap, took a fifth of the time of a product.
#[inline(always)]
fn copy(words: &[f32], bytes: &mut [u8; TILE_BYTES]) {
    const STEP: usize = 4;
    if let Some(words) = words.first_chunk::<LANES>() {
        let mut line = [[0; 4]; LANES];
        for i in 0..LANES {
            line[i] = words[i].to_bits().to_le_bytes();
        }
        bytes.copy_from_slice(line.as_flattened());
    } else {
        let (words, bytes) = (words.as_chunks::<STEP>().0, bytes.as_chunks_mut::<{ 4 * STEP }>().0);
        for (words, bytes) in words.iter().zip(bytes) {
            let [a, b, c, d] = words.map(|word| word.to_bits().to_le_bytes());
            bytes.copy_from_slice([a, b, c, d].as_flattened());
        }
    }
}
