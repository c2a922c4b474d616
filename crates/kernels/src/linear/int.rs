//! Products of small integer codes with the digits of x: exact i32 sums within a unit, f32 from unit to unit.
//!
//! Plain loops only, as in `cpu.rs`.

#![allow(
    clippy::needless_range_loop,
    clippy::explicit_counter_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use super::codec::{Codes, Scales};
use super::cpu::{Args, PASS, Sink, TILE, UNIT_MAX, emit};
use super::digits::{DIGITS, HEADER};
use crate::simd::{LANES, Simd, lanes, lanes_mut};

/// Runs all blocks; the counterpart of `cpu::run` for integer codes.
#[inline(always)]
pub(super) fn run<S: Simd, C: Codes>(simd: S, args: Args<'_>, sink: &mut Sink<'_>) {
    let rows = args.x.rows;
    for block in args.blocks.clone() {
        if rows == 1 {
            tile::<S, C, 1, 4>(simd, &args, block, 0, sink);
        } else if rows <= TILE {
            tile::<S, C, TILE, 1>(simd, &args, block, 0, sink);
        } else {
            let mut first = 0;
            while first < rows {
                pass::<S, C>(simd, &args, block, first..rows.min(first + PASS), sink);
                first += PASS;
            }
        }
    }
}

/// How far ahead of the unit at work memory is asked for: about what a core reads while one access is under way.
const AHEAD: usize = 4096;

/// Columns whose digits are taken together: four steps of four.
const STRIDE: usize = 16;

/// Up to `R` rows against one block, straight from the codes; rows past the last repeat it and are dropped.
/// `SETS` accumulators of each row and digit hide the latency of a product where rows are too few to.
#[inline(always)]
fn tile<S: Simd, C: Codes, const R: usize, const SETS: usize>(
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
    for slice in args.slices.clone() {
        let bytes = &args.w.bytes[layout.range(slice, block)];
        let mut group = layout.slice(slice).0 / unit_cols;
        let mut part = [simd.splat(0.0); R];
        for unit in bytes.chunks_exact(unit_bytes) {
            simd.prefetch(unit, AHEAD);
            let x = args.x.groups(&rows, group);
            let mut acc = [[[simd.splat_i(0); DIGITS]; R]; SETS];
            acc[0] = start::<S, C, R>(simd, &x);
            for i in 0..unit_cols / STRIDE {
                let x = steps_of(&x, i);
                for j in 0..4 {
                    let steps = 8 / C::PLANE;
                    let codes = C::bytes(simd, unit, unit_cols, (4 * i) / steps + j / steps, j % steps);
                    accumulate(simd, &mut acc[j % SETS], &x, j, codes);
                }
            }
            for set in 1..SETS {
                for r in 0..R {
                    for digit in 0..DIGITS {
                        acc[0][r][digit] = simd.add_i(acc[0][r][digit], acc[set][r][digit]);
                    }
                }
            }
            let scales = Scales::read(simd, layout, unit);
            for r in 0..R {
                part[r] = finish::<S, C>(simd, &scales, acc[0][r], x[r], part[r]);
            }
            group += 1;
        }
        for r in 0..R {
            total[r] = simd.add(total[r], part[r]);
        }
    }
    for r in 0..R {
        if first + r < args.x.rows {
            emit(simd, first + r, block, total[r], sink);
        }
    }
}

/// Up to [`PASS`] rows against one block, each unit unpacked to bytes once.
#[inline(always)]
fn pass<S: Simd, C: Codes>(simd: S, args: &Args<'_>, block: usize, rows: Range<usize>, sink: &mut Sink<'_>) {
    let layout = args.w.layout;
    let (unit_cols, unit_bytes) = (layout.unit_cols(), layout.unit_bytes());
    let mut total = [0.0; PASS * LANES];
    for slice in args.slices.clone() {
        let bytes = &args.w.bytes[layout.range(slice, block)];
        let mut group = layout.slice(slice).0 / unit_cols;
        let mut part = [0.0; PASS * LANES];
        for unit in bytes.chunks_exact(unit_bytes) {
            let mut codes = [[0u8; 64]; UNIT_MAX / 4];
            for i in 0..unit_cols / 4 {
                let steps = 8 / C::PLANE;
                simd.store_u(C::bytes(simd, unit, unit_cols, i / steps, i % steps), &mut codes[i]);
            }
            let scales = Scales::read(simd, layout, unit);
            let mut row = rows.start;
            while row < rows.end {
                let x = args.x.groups(&args.x.indices::<TILE>(row), group);
                let mut acc = start::<S, C, TILE>(simd, &x);
                for i in 0..unit_cols / STRIDE {
                    let x = steps_of(&x, i);
                    for j in 0..4 {
                        accumulate(simd, &mut acc, &x, j, simd.words(&codes[4 * i + j]));
                    }
                }
                for r in 0..TILE {
                    if row + r < rows.end {
                        let at = (row + r - rows.start) * LANES;
                        let y = finish::<S, C>(simd, &scales, acc[r], x[r], simd.load(lanes(&part, at)));
                        simd.store(y, lanes_mut(&mut part, at));
                    }
                }
                row += TILE;
            }
            group += 1;
        }
        for at in (0..rows.len() * LANES).step_by(LANES) {
            let sum = simd.add(simd.load(lanes(&total, at)), simd.load(lanes(&part, at)));
            simd.store(sum, lanes_mut(&mut total, at));
        }
    }
    for row in rows.clone() {
        emit(simd, row, block, simd.load(lanes(&total, (row - rows.start) * LANES)), sink);
    }
}

/// Accumulators of a unit: what the offset of the codes adds is taken off beforehand.
#[inline(always)]
fn start<S: Simd, C: Codes, const R: usize>(simd: S, x: &[&[f32]; R]) -> [[S::I; DIGITS]; R] {
    let mut acc = [[simd.splat_i(0); DIGITS]; R];
    if C::OFFSET != 0 {
        for r in 0..R {
            for digit in 0..DIGITS {
                acc[r][digit] = simd.splat_i(-C::OFFSET * x[r][2 + digit].to_bits() as i32);
            }
        }
    }
    acc
}

/// Digits of the columns `STRIDE·i..STRIDE·(i + 1)` of a group of each row.
#[inline(always)]
fn steps_of<'a, const R: usize>(x: &[&'a [f32]; R], i: usize) -> [&'a [f32]; R] {
    let mut steps = [&[][..]; R];
    for r in 0..R {
        steps[r] = &x[r][HEADER + i * 4 * DIGITS..][..4 * DIGITS];
    }
    steps
}

/// Four columns into the accumulators of each row and digit.
#[inline(always)]
fn accumulate<S: Simd, const R: usize>(
    simd: S,
    acc: &mut [[S::I; DIGITS]; R],
    x: &[&[f32]; R],
    step: usize,
    codes: S::U,
) {
    for r in 0..R {
        for digit in 0..DIGITS {
            let x = x[r][step * DIGITS + digit].to_bits() as i32;
            acc[r][digit] = simd.dot4(acc[r][digit], codes, x);
        }
    }
}

/// `y + scale · x-scale · (65536·a + 256·b + c) + bias · Σx`.
#[inline(always)]
fn finish<S: Simd, C: Codes>(simd: S, scales: &Scales<S>, acc: [S::I; DIGITS], x: &[f32], y: S::F) -> S::F {
    let [a, b, c] = acc;
    let low = simd.fma(simd.splat(256.0), simd.float(b), simd.float(c));
    let dot = simd.fma(simd.splat(65536.0), simd.float(a), low);
    scales.apply(simd, dot, C::UNIT * x[1], x[0], y)
}
