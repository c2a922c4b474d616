//! Step 4, chains and prefetch: `linear::matmul` as the engine runs it, still one product at a time.
//!
//! Four chains of sums per digit hide the latency of a product at one row, and every unit asks for memory 4 KiB
//! ahead: a core keeps more lines in flight than the hardware prefetcher asks for. Any format.

use std::ops::Range;

use amoeba_checkpoint::Format;

use super::memory::packed;
use super::{Product, Rows, Which};
use crate::experts::Bank;
use crate::linear::cpu::Sink;
use crate::linear::{Arrangement, Digits, Input, matmul, prepare};
use crate::simd::Isa;

/// See the module.
pub(super) struct Linear<'a> {
    pub(super) isa: Isa,
    pub(super) bank: &'a Bank,
}

impl Linear<'_> {
    fn format(&self) -> Format {
        self.bank.up.weights.layout().format
    }
}

impl Product for Linear<'_> {
    fn len(&self, cols: usize) -> usize {
        len(self.format(), cols)
    }

    fn prepare(&self, x: &[f32], out: &mut [f32]) {
        prepared(self.isa, self.format(), x, out);
    }

    fn product(&self, which: Which, expert: usize, blocks: Range<usize>, x: &Rows<'_>, sink: &mut Sink<'_>) {
        let weights = packed(self.bank, which).expert(expert);
        let input = input(Arrangement::of(self.format(), Digits::Three), x);
        matmul(self.isa, weights, blocks, 0..1, &input, sink);
    }
}

/// Slots of a row of x as products with a format read it.
pub(super) fn len(format: Format, cols: usize) -> usize {
    Arrangement::of(format, Digits::Three).map_or(cols, |arrangement| arrangement.len(cols))
}

/// Writes such a row.
pub(super) fn prepared(isa: Isa, format: Format, x: &[f32], out: &mut [f32]) {
    match Arrangement::of(format, Digits::Three) {
        Some(arrangement) => prepare(isa, arrangement, x, out),
        None => out.copy_from_slice(x),
    }
}

/// Such rows as `linear` takes them: digits, or x itself for formats that are multiplied as floats.
pub(super) fn input<'a>(arrangement: Option<Arrangement>, x: &Rows<'a>) -> Input<'a> {
    Input {
        x: x.values,
        stride: x.stride,
        index: Some(x.index),
        rows: x.index.len(),
        prepared: x.values,
        prepared_stride: x.stride,
        arrangement,
    }
}
