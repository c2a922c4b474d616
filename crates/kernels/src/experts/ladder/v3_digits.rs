//! Step 3, integer digits: x as three balanced base-256 digits a value (`linear/digits.rs`), four columns of
//! sixteen rows per instruction, exact sums in i32 within a unit.
//!
//! Eleven vector operations per 128 weights instead of twenty-four. One chain of sums per digit, nothing
//! asked for ahead of time: what the hardware prefetcher gives.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use amoeba_checkpoint::Format;

use super::memory::packed;
use super::v2_packed::{scale_and_bias, store, tiled};
use super::{Product, Rows, Which, plain_bits};
use crate::experts::Bank;
use crate::linear::cpu::Sink;
use crate::linear::{self, Arrangement, Weights, prepare};
use crate::simd::{Isa, LANES, Simd, dispatch};

/// See the module.
pub(super) struct Digits<'a> {
    isa: Isa,
    bank: &'a Bank,
    arrangement: Arrangement,
}

/// Digits of a value.
const DIGITS: usize = 3;
/// Slots before the digits of a group: scale, sum of the integers, sums of the digits.
const HEADER: usize = 2 + DIGITS;

impl<'a> Digits<'a> {
    /// `None` if codes do not fill words.
    pub(super) fn new(isa: Isa, bank: &'a Bank, format: Format) -> Option<Digits<'a>> {
        let arrangement = plain_bits(format).and_then(|_| Arrangement::of(format, linear::Digits::Three))?;
        Some(Digits { isa, bank, arrangement })
    }
}

impl Product for Digits<'_> {
    fn len(&self, cols: usize) -> usize {
        self.arrangement.len(cols)
    }

    fn prepare(&self, x: &[f32], out: &mut [f32]) {
        prepare(self.isa, self.arrangement, x, out);
    }

    fn product(&self, which: Which, expert: usize, blocks: Range<usize>, x: &Rows<'_>, sink: &mut Sink<'_>) {
        outputs(self.isa, packed(self.bank, which).expert(expert), blocks, x, sink);
    }
}

tiled!();

/// Up to `R` rows against one block; rows past the last repeat it and are dropped.
#[inline(always)]
fn tile<S: Simd, const R: usize, const BITS: usize>(
    simd: S,
    w: Weights<'_>,
    block: usize,
    x: &Rows<'_>,
    first: usize,
    sink: &mut Sink<'_>,
) {
    let layout = w.layout;
    let cols = layout.unit_cols();
    let group_len = HEADER + cols * DIGITS / 4;
    let rows: [&[f32]; R] = std::array::from_fn(|r| x.row((first + r).min(x.index.len() - 1)));
    let mut y = [simd.splat(0.0); R];
    for (i, unit) in w.bytes[layout.range(0, block)].chunks_exact(layout.unit_bytes()).enumerate() {
        let mut acc = [[simd.splat_i(0); DIGITS]; R];
        let (words, scales) = unit.split_at(cols * BITS * LANES / 8);
        let mut at = i * group_len + HEADER;
        for words in words.as_chunks::<64>().0 {
            let words = simd.words(words);
            for step in 0..8 / BITS {
                let codes = simd.bytes_field(words, (BITS * step) as u32, ((1u32 << BITS) - 1) as u8);
                for r in 0..R {
                    let x = &rows[r][at..][..2 * cols / 4 + 1];
                    for digit in 0..DIGITS {
                        acc[r][digit] = simd.dot4(acc[r][digit], codes, x[digit * cols / 4].to_bits() as i32);
                    }
                }
                at += 1;
            }
        }
        let [scale, bias] = scale_and_bias(simd, layout.format, scales);
        for r in 0..R {
            let [high, middle, low] = acc[r];
            let low = simd.float(simd.add_i(simd.shift_left::<8>(middle), low));
            let dot = simd.fma(simd.splat(65536.0), simd.float(high), low);
            let (x_scale, x_sum) = (rows[r][i * group_len], rows[r][i * group_len + 1]);
            let offset = simd.mul(bias, simd.splat(x_sum));
            y[r] = simd.fma(simd.splat(x_scale), simd.fma(scale, dot, offset), y[r]);
        }
    }
    store(simd, &y, x, first, block, sink);
}
