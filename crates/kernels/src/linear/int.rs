//! Products of small integer codes with the digits of x: exact i32 sums within a unit, f32 from unit to unit.
//!
//! Plain loops only, as in `cpu.rs`.

#![allow(
    clippy::needless_range_loop,
    clippy::explicit_counter_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use super::codec::{Codes, UnitScales};
use super::cpu::{Args, Input, PASS, Sink, TILE, emit, emit_tile};
use super::digits::{Digits, HEADER, MOST};
use super::pack::{Layout, Span};
use crate::simd::{LANES, Simd, lanes, lanes_mut};

/// Up to [`TILE`] rows with all blocks, x in `D` digits; with [`many`] the counterpart of `cpu::run` for
/// integer codes.
#[inline(always)]
pub(super) fn few<S: Simd, C: Codes, const D: usize>(simd: S, args: Args<'_>, sink: &mut Sink<'_>) {
    if S::COMPACT {
        return compact::<S, C>(simd, &args, sink);
    }
    match args.x.rows {
        0 => {}
        1 => tiles::<S, C, D, 1, 2>(simd, &args, sink),
        2 => tiles::<S, C, D, 2, 1>(simd, &args, sink),
        _ => tiles::<S, C, D, TILE, 1>(simd, &args, sink),
    }
}

/// Any number of rows with all blocks.
#[inline(always)]
pub(super) fn many<S: Simd, C: Codes, const D: usize>(simd: S, args: Args<'_>, sink: &mut Sink<'_>) {
    if S::COMPACT {
        return compact::<S, C>(simd, &args, sink);
    }
    let rows = args.x.rows;
    // Written by the first slice; without one the sums are zero.
    let (mut total, mut part) = ([0.0; PASS * LANES], [0.0; PASS * LANES]);
    let mut first = 0;
    while first < rows {
        // The rows of a pass stay in the cache over all blocks.
        let pass = Pass::new(args.x, first..rows.min(first + PASS));
        for block in args.blocks.clone() {
            pass.block::<S, C, D>(simd, &args, block, &mut total, &mut part);
            for row in pass.rows.clone() {
                emit(simd, row, block, simd.load(lanes(&total, (row - first) * LANES)), sink);
            }
        }
        first += PASS;
    }
}

/// The same sums in plain loops over one row at a time, for lanes without vector instructions: little code,
/// not fast.
#[inline(never)]
fn compact<S: Simd, C: Codes>(simd: S, args: &Args<'_>, sink: &mut Sink<'_>) {
    let (layout, digits) = (args.w.layout, args.x.digits());
    let (unit_cols, unit_bytes) = (layout.unit_cols(), layout.unit_bytes());
    let quads = unit_cols / 4;
    for block in args.blocks.clone() {
        for row in 0..args.x.rows {
            let mut total = simd.splat(0.0);
            for (nth, slice) in args.slices.clone().enumerate() {
                let (span, mut part) = (layout.span(slice), simd.splat(0.0));
                for i in 0..span.units {
                    let unit =
                        &args.w.bytes[span.first + (block * span.units + i) * unit_bytes..][..unit_bytes];
                    let [x] = args.x.groups(&args.x.indices::<1>(row), span.group + i);
                    let mut acc = start::<S, C, MOST>(simd, x);
                    for q in 0..quads {
                        let codes = C::bytes(simd, unit, unit_cols, q / (8 / C::PLANE), q % (8 / C::PLANE));
                        for digit in 0..digits.count() {
                            let x = x[HEADER + digit * quads + q].to_bits() as i32;
                            acc[digit] = simd.dot4(acc[digit], codes, x);
                        }
                    }
                    let scales = UnitScales::read::<C>(simd, layout, unit, unit_cols);
                    part = match digits {
                        Digits::One => finish::<S, C, 1>(simd, &scales, [acc[0]], factors::<C>(x), part),
                        Digits::Two => {
                            finish::<S, C, 2>(simd, &scales, [acc[0], acc[1]], factors::<C>(x), part)
                        }
                        Digits::Three => finish::<S, C, 3>(simd, &scales, acc, factors::<C>(x), part),
                    };
                }
                total = if nth == 0 { part } else { simd.add(total, part) };
            }
            emit(simd, row, block, total, sink);
        }
    }
}

/// How far ahead of the unit at work memory is asked for: about what a core reads while one access is under
/// way.
pub(super) const AHEAD: usize = 8192;

/// Up to `R` rows against all blocks, straight from the codes; rows past the last repeat it and are dropped.
/// `SETS` accumulators of each row and digit hide the latency of a product where rows are too few to.
#[inline(always)]
fn tiles<S: Simd, C: Codes, const D: usize, const R: usize, const SETS: usize>(
    simd: S,
    args: &Args<'_>,
    sink: &mut Sink<'_>,
) {
    let layout = args.w.layout;
    let rows = args.x.indices::<R>(0);
    // Divisions, which a narrow slice would feel for every block.
    let first = layout.span(args.slices.start);
    for block in args.blocks.clone() {
        let mut total = [simd.splat(0.0); R];
        for slice in args.slices.clone() {
            let once = slice == args.slices.start;
            let span = if once { first } else { layout.span(slice) };
            let part = units::<S, C, D, R, SETS>(simd, args, &rows, &span, block);
            for r in 0..R {
                total[r] = if once { part[r] } else { simd.add(total[r], part[r]) };
            }
        }
        emit_tile(simd, args.x.rows, (0, block), &total, sink);
    }
}

/// The sums of a block of one slice.
#[inline(always)]
fn units<S: Simd, C: Codes, const D: usize, const R: usize, const SETS: usize>(
    simd: S,
    args: &Args<'_>,
    rows: &[usize; R],
    span: &Span,
    block: usize,
) -> [S::F; R] {
    let layout = args.w.layout;
    let (unit_cols, unit_bytes) = (layout.unit_cols(), layout.unit_bytes());
    let bytes = &args.w.bytes[span.first + block * span.units * unit_bytes..][..span.units * unit_bytes];
    let mut part = [simd.splat(0.0); R];
    for i in 0..span.units {
        let unit = &bytes[i * unit_bytes..][..unit_bytes];
        simd.prefetch(unit, AHEAD);
        let x = args.x.groups(rows, span.group + i);
        let acc = match unit_cols {
            16 if !C::BIASED => unit_sums::<S, C, D, R, SETS, 4>(simd, unit, &x),
            64 if C::BIASED => unit_sums::<S, C, D, R, SETS, 16>(simd, unit, &x),
            128 if C::BIASED => unit_sums::<S, C, D, R, SETS, 32>(simd, unit, &x),
            _ => unit_sums::<S, C, D, R, SETS, 8>(simd, unit, &x),
        };
        let scales = UnitScales::read::<C>(simd, layout, unit, unit_cols);
        for r in 0..R {
            part[r] = finish::<S, C, D>(simd, &scales, acc[r], factors::<C>(x[r]), part[r]);
        }
    }
    part
}

/// The sums of some rows over one unit of `Q` quads of columns; the lengths are constants, so that no access
/// is checked.
#[inline(always)]
fn unit_sums<S: Simd, C: Codes, const D: usize, const R: usize, const SETS: usize, const Q: usize>(
    simd: S,
    unit: &[u8],
    x: &[&[f32]; R],
) -> [[S::I; D]; R] {
    let codes = &unit[..LANES * 4 * Q * C::BITS / 8];
    let mut rows = [&[][..]; R];
    let mut acc = [[[simd.splat_i(0); D]; R]; SETS];
    for r in 0..R {
        rows[r] = &x[r][HEADER..][..Q * D];
        acc[0][r] = start::<S, C, D>(simd, x[r]);
    }
    for i in 0..Q / 4 {
        for j in 0..4 {
            let (q, steps) = (4 * i + j, 8 / C::PLANE);
            let codes = C::bytes(simd, codes, 4 * Q, q / steps, q % steps);
            for r in 0..R {
                for digit in 0..D {
                    let x = rows[r][digit * Q + q].to_bits() as i32;
                    acc[j % SETS][r][digit] = simd.dot4(acc[j % SETS][r][digit], codes, x);
                }
            }
        }
    }
    for set in 1..SETS {
        for r in 0..R {
            for digit in 0..D {
                acc[0][r][digit] = simd.add_i(acc[0][r][digit], acc[set][r][digit]);
            }
        }
    }
    acc[0]
}

/// Up to [`PASS`] rows.
struct Pass<'a> {
    x: &'a Input<'a>,
    rows: Range<usize>,
    /// Where the prepared rows start; past the last, the last again, whose sums are dropped.
    starts: [usize; PASS],
}

impl<'a> Pass<'a> {
    #[inline(always)]
    fn new(x: &'a Input<'a>, rows: Range<usize>) -> Pass<'a> {
        let mut starts = [0; PASS];
        for i in 0..PASS {
            let [row] = x.indices::<1>(rows.start + i);
            starts[i] = row * x.prepared_stride;
        }
        Pass { x, rows, starts }
    }

    /// The sums of one block into `total`; `part` is scratch for a slice.
    #[inline(always)]
    fn block<S: Simd, C: Codes, const D: usize>(
        &self,
        simd: S,
        args: &Args<'_>,
        block: usize,
        total: &mut [f32; PASS * LANES],
        part: &mut [f32; PASS * LANES],
    ) {
        let layout = args.w.layout;
        let (unit_cols, unit_bytes) = (layout.unit_cols(), layout.unit_bytes());
        let starts = &self.starts[..self.rows.len().next_multiple_of(TILE)];
        for (nth, slice) in args.slices.clone().enumerate() {
            let bytes = &args.w.bytes[layout.range(slice, block)];
            let first = layout.slice(slice).0 / unit_cols;
            let sums = if nth == 0 { &mut *total } else { &mut *part };
            for r in 0..starts.len() {
                simd.store(simd.splat(0.0), lanes_mut(sums, r * LANES));
            }
            for (i, unit) in bytes.chunks_exact(unit_bytes).enumerate() {
                simd.prefetch(unit, AHEAD);
                let x = GroupOfRows { x: self.x, group: first + i, starts };
                match unit_cols {
                    16 if !C::BIASED => strip::<S, C, D, 4>(simd, layout, unit, &x, sums),
                    64 if C::BIASED => strip::<S, C, D, 16>(simd, layout, unit, &x, sums),
                    128 if C::BIASED => strip::<S, C, D, 32>(simd, layout, unit, &x, sums),
                    _ => strip::<S, C, D, 8>(simd, layout, unit, &x, sums),
                }
            }
            if nth > 0 {
                for at in (0..starts.len() * LANES).step_by(LANES) {
                    let sum = simd.add(simd.load(lanes(total, at)), simd.load(lanes(part, at)));
                    simd.store(sum, lanes_mut(total, at));
                }
            }
        }
    }
}

/// One group of the rows of a pass.
struct GroupOfRows<'a> {
    x: &'a Input<'a>,
    group: usize,
    starts: &'a [usize],
}

/// The body once for each number below a constant of at most 32, so that what it indexes stays in registers:
/// a loop of this size the compiler would not unroll.
macro_rules! each {
    ($i:ident below $count:ident, $body:block) => {
        each!(@ $i $count $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@ $i:ident $count:ident $body:block $($at:literal)*) => {
        $({
            const $i: usize = $at;
            if $i < $count $body
        })*
    };
}
pub(super) use each;

/// All rows of a pass against one unit of `Q` quads of columns, whose codes stay in registers.
#[inline(always)]
fn strip<S: Simd, C: Codes, const D: usize, const Q: usize>(
    simd: S,
    layout: &Layout,
    unit: &[u8],
    x: &GroupOfRows<'_>,
    part: &mut [f32; PASS * LANES],
) {
    let mut codes = [simd.words(&[0; 64]); Q];
    for q in 0..Q {
        let steps = 8 / C::PLANE;
        codes[q] = C::bytes(simd, unit, 4 * Q, q / steps, q % steps);
    }
    let scales = UnitScales::read::<C>(simd, layout, unit, 4 * Q);
    let len = HEADER + Q * D;
    for (starts, part) in
        x.starts.as_chunks::<TILE>().0.iter().zip(part.as_chunks_mut::<{ TILE * LANES }>().0)
    {
        let mut rows = [&[][..]; TILE];
        for r in 0..TILE {
            rows[r] = &x.x.prepared[starts[r] + x.group * len..][..len];
        }
        let mut acc = [[simd.splat_i(0); D]; TILE];
        for r in 0..TILE {
            acc[r] = start::<S, C, D>(simd, rows[r]);
        }
        if S::UNROLL {
            each!(QUAD below Q, {
                for r in 0..TILE {
                    for digit in 0..D {
                        let x = rows[r][HEADER + digit * Q + QUAD].to_bits() as i32;
                        acc[r][digit] = simd.dot4(acc[r][digit], codes[QUAD], x);
                    }
                }
            });
        } else {
            for q in 0..Q {
                for r in 0..TILE {
                    for digit in 0..D {
                        let x = rows[r][HEADER + digit * Q + q].to_bits() as i32;
                        acc[r][digit] = simd.dot4(acc[r][digit], codes[q], x);
                    }
                }
            }
        }
        for r in 0..TILE {
            let (factors, y) = (factors::<C>(rows[r]), simd.load(lanes(part, r * LANES)));
            let y = finish::<S, C, D>(simd, &scales, acc[r], factors, y);
            simd.store(y, lanes_mut(part, r * LANES));
        }
    }
}

/// Accumulators of a unit.
#[inline(always)]
fn start<S: Simd, C: Codes, const D: usize>(simd: S, x: &[f32]) -> [S::I; D] {
    let mut acc = [simd.splat_i(0); D];
    for digit in 0..D {
        acc[digit] = simd.splat_i(offset::<C>(x, digit));
    }
    acc
}

/// What takes off beforehand what the offset of the codes adds to the sums of a digit of x.
#[inline(always)]
pub(super) fn offset<C: Codes>(x: &[f32], digit: usize) -> i32 {
    if C::OFFSET == 0 { 0 } else { -C::OFFSET * x[2 + digit].to_bits() as i32 }
}

/// What a step of the integers of x times a step of the codes is worth, and the sum of the integers.
#[inline(always)]
pub(super) fn factors<C: Codes>(x: &[f32]) -> [f32; 2] {
    [C::UNIT * x[0], x[1]]
}

/// `y + factor · (scale · (65536·a + 256·b + c) + bias · Σx)`; exact up to the sum of a with the rest.
#[inline(always)]
pub(super) fn finish<S: Simd, C: Codes, const D: usize>(
    simd: S,
    scales: &UnitScales<S>,
    acc: [S::I; D],
    [factor, sum]: [f32; 2],
    y: S::F,
) -> S::F {
    // Two digits fit one i32: the sum of each is below 2^22.
    let low = match D {
        1 => acc[0],
        _ => simd.add_i(simd.shift_left::<8>(acc[D - 2]), acc[D - 1]),
    };
    let dot = match D {
        3 => simd.fma(simd.splat(65536.0), simd.float(acc[0]), simd.float(low)),
        _ => simd.float(low),
    };
    let factor = simd.splat(factor);
    if C::BIASED {
        let offset = simd.mul(scales.bias, simd.splat(sum));
        simd.fma(factor, simd.fma(scales.scale, dot, offset), y)
    } else {
        simd.fma(simd.mul(scales.scale, factor), dot, y)
    }
}
