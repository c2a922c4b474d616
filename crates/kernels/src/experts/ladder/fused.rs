//! The engine's order of work: an item is an expert × a slice of its inner width, from gather to partial
//! output in one pass.
//!
//! Gate, up, activation and this slice's columns of down follow one another in one core's cache, and no item
//! waits for another: three phases instead of six, of which the middle one holds all the weights. A narrow
//! slice of down is few units to a block of outputs, each of which ends in a partial result to be stored and
//! added; a wide one leaves many threads without work. The engine takes what gives about 16 items a layer.

use std::sync::{Mutex, PoisonError};

use amoeba_checkpoint::Format;

use super::cpu::Shared;
use super::unfused::{COLUMNS, Rows, weighted_sum};
use super::{Batch, Shape, Version};
use crate::experts::cpu::{Rows as ItemRows, Scratch};
use crate::experts::{Bank, fused_item};
use crate::linear::{Arrangement, Digits, Input, prepare};
use crate::simd::Isa;

/// A fused step.
pub struct Fused<'a> {
    isa: Isa,
    bank: &'a Bank,
    shape: Shape,
    /// One each, so that no lock is ever waited for.
    scratch: Vec<Mutex<Scratch>>,
    x: Shared,
    partials: Shared,
    out: Shared,
}

impl<'a> Fused<'a> {
    /// Room for `rows` rows (at most eight) and `workers` workers.
    pub fn new(isa: Isa, bank: &'a Bank, shape: Shape, rows: usize, workers: usize) -> Fused<'a> {
        let format = bank.up.weights.layout().format;
        let scratch = Scratch::new(bank.down.weights.layout().slice_cols);
        Fused {
            isa,
            bank,
            shape,
            scratch: (0..workers).map(|_| Mutex::new(scratch.clone())).collect(),
            x: Shared::zeroed(rows, len(format, shape.hidden)),
            partials: Shared::zeroed(rows * shape.top_k * bank.slices(), shape.hidden),
            out: Shared::zeroed(rows, shape.hidden),
        }
    }

    fn item(&self, batch: &Batch, item: usize, worker: usize) {
        let slices = self.bank.slices();
        let (group, slice) = (&batch.groups[item / slices], item % slices);
        let rows = Rows { values: self.x.all(), stride: self.x.width, index: &group.rows };
        let input = input(Arrangement::of(self.bank.up.weights.layout().format, Digits::Three), &rows);
        let rows = ItemRows { gate: input, up: input, digits: Digits::Three };
        let mut scratch = self.scratch[worker].lock().unwrap_or_else(PoisonError::into_inner);
        fused_item(self.isa, self.bank, group.expert, slice, &rows, &mut scratch, &mut |i, col, values| {
            let row = group.choices[i] as usize * slices + slice;
            self.partials.part_mut(row, col, values.len()).copy_from_slice(values);
        });
    }
}

impl Version for Fused<'_> {
    fn phases(&self) -> usize {
        3
    }

    fn items(&self, batch: &Batch, phase: usize) -> usize {
        match phase {
            0 => batch.rows(),
            1 => batch.groups.len() * self.bank.slices(),
            _ => batch.rows() * self.shape.hidden.div_ceil(COLUMNS),
        }
    }

    fn run(&self, batch: &Batch, phase: usize, item: usize, worker: usize) {
        let (hidden, format) = (self.shape.hidden, self.bank.up.weights.layout().format);
        match phase {
            0 => {
                let x = &batch.x[item * hidden..][..hidden];
                prepared(self.isa, format, x, self.x.part_mut(item, 0, self.x.width));
            }
            1 => self.item(batch, item, worker),
            _ => weighted_sum(self.isa, &self.partials, self.bank.slices(), batch, item, &self.out),
        }
    }

    fn out(&self, row: usize) -> &[f32] {
        self.out.row(row)
    }
}

/// Slots of a row of x as products with a format read it.
fn len(format: Format, cols: usize) -> usize {
    Arrangement::of(format, Digits::Three).map_or(cols, |arrangement| arrangement.len(cols))
}

/// Writes such a row.
fn prepared(isa: Isa, format: Format, x: &[f32], out: &mut [f32]) {
    match Arrangement::of(format, Digits::Three) {
        Some(arrangement) => prepare(isa, arrangement, x, out),
        None => out.copy_from_slice(x),
    }
}

/// Such rows as `linear` takes them: digits, or x itself for formats that are multiplied as floats.
fn input<'a>(arrangement: Option<Arrangement>, x: &Rows<'a>) -> Input<'a> {
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
