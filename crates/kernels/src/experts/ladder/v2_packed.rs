//! Step 2, packed units: sixteen rows side by side, scales and biases after their codes (`linear/pack.rs`),
//! in f32.
//!
//! Lane i is output i: x is broadcast, there is no sum over lanes, a unit is one contiguous read, and its
//! sixteen scales are one load. Four rows of x share the decoding of a word.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use std::ops::Range;

use amoeba_checkpoint::{Float, Format};

use super::memory::packed;
use super::{Product, Rows, Which, plain_bits};
use crate::experts::Bank;
use crate::linear::Weights;
use crate::linear::cpu::Sink;
use crate::quant::read_float;
use crate::simd::{Isa, LANES, Simd, dispatch};

/// Defines `outputs`: the `tile` of the module on one block after another, four rows at a time.
macro_rules! tiled {
    () => {
        dispatch! {
            fn outputs(w: Weights<'_>, blocks: Range<usize>, x: &Rows<'_>, sink: &mut Sink<'_>) = outputs_with
        }

        #[inline(always)]
        fn outputs_with<S: Simd>(
            simd: S,
            w: Weights<'_>,
            blocks: Range<usize>,
            x: &Rows<'_>,
            sink: &mut Sink<'_>,
        ) {
            for block in blocks {
                let mut first = 0;
                while first < x.index.len() {
                    let rows = if x.index.len() == 1 { 1 } else { 4 };
                    match (rows, w.layout.format.bits()) {
                        (1, 2) => tile::<S, 1, 2>(simd, w, block, x, first, sink),
                        (1, 4) => tile::<S, 1, 4>(simd, w, block, x, first, sink),
                        (1, _) => tile::<S, 1, 8>(simd, w, block, x, first, sink),
                        (_, 2) => tile::<S, 4, 2>(simd, w, block, x, first, sink),
                        (_, 4) => tile::<S, 4, 4>(simd, w, block, x, first, sink),
                        (_, _) => tile::<S, 4, 8>(simd, w, block, x, first, sink),
                    }
                    first += rows;
                }
            }
        }
    };
}
pub(super) use tiled;

/// See the module.
pub(super) struct PackedF32<'a> {
    isa: Isa,
    bank: &'a Bank,
    group: usize,
}

impl<'a> PackedF32<'a> {
    /// `None` if codes do not fill words.
    pub(super) fn new(isa: Isa, bank: &'a Bank, format: Format) -> Option<PackedF32<'a>> {
        plain_bits(format).map(|_| PackedF32 { isa, bank, group: format.group() })
    }
}

impl Product for PackedF32<'_> {
    /// The columns of a group and their sum.
    fn len(&self, cols: usize) -> usize {
        cols + cols / self.group
    }

    fn prepare(&self, x: &[f32], out: &mut [f32]) {
        for (x, out) in x.chunks_exact(self.group).zip(out.chunks_exact_mut(self.group + 1)) {
            out[..self.group].copy_from_slice(x);
            out[self.group] = x.iter().sum();
        }
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
    let rows: [&[f32]; R] = std::array::from_fn(|r| x.row((first + r).min(x.index.len() - 1)));
    let mut y = [simd.splat(0.0); R];
    for (i, unit) in w.bytes[layout.range(0, block)].chunks_exact(layout.unit_bytes()).enumerate() {
        let mut acc = [[simd.splat(0.0); 4]; R];
        let (words, scales) = unit.split_at(cols * BITS * LANES / 8);
        for (word, words) in words.as_chunks::<64>().0.iter().enumerate() {
            let words = simd.words(words);
            for j in 0..32 / BITS {
                let codes = simd.field(words, (BITS * j) as u32, (1 << BITS) - 1);
                for r in 0..R {
                    let x = rows[r][i * (cols + 1) + word * (32 / BITS) + j];
                    acc[r][j % 4] = simd.fma(codes, simd.splat(x), acc[r][j % 4]);
                }
            }
        }
        let [scale, bias] = scale_and_bias(simd, layout.format, scales);
        for r in 0..R {
            let dot = simd.add(simd.add(acc[r][0], acc[r][1]), simd.add(acc[r][2], acc[r][3]));
            y[r] = simd.fma(scale, dot, y[r]);
            y[r] = simd.fma(bias, simd.splat(rows[r][i * (cols + 1) + cols]), y[r]);
        }
    }
    store(simd, &y, x, first, block, sink);
}

/// Hands out the outputs of a tile.
#[inline(always)]
pub(super) fn store<S: Simd>(
    simd: S,
    y: &[S::F],
    x: &Rows<'_>,
    first: usize,
    block: usize,
    sink: &mut Sink<'_>,
) {
    for (i, y) in (first..x.index.len()).zip(y) {
        let mut out = [0.0; LANES];
        simd.store(*y, &mut out);
        sink(i, block * LANES, &out);
    }
}

/// The sixteen scales and sixteen biases after the codes of a unit.
#[inline(always)]
pub(super) fn scale_and_bias<S: Simd>(simd: S, format: Format, bytes: &[u8]) -> [S::F; 2] {
    let float = if let Format::Affine { scale, .. } = format { scale } else { Float::F32 };
    let mut both = [simd.splat(0.0); 2];
    for part in 0..2 {
        let bytes = &bytes[part * LANES * float.bytes()..];
        let short = || bytes.first_chunk().expect("sixteen of two bytes");
        both[part] = match float {
            Float::BF16 => simd.bf16(short()),
            Float::F16 => simd.f16(short()),
            Float::F32 => {
                let mut values = [0.0; LANES];
                for lane in 0..LANES {
                    values[lane] = read_float(bytes, lane, float);
                }
                simd.load(&values)
            }
        };
    }
    both
}
