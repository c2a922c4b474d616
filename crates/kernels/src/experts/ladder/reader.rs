//! The floor: reads the weights that a batch needs, in the memory a step reads them from, and does nothing
//! else. Driven like a step, so that the two compare.

use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_checkpoint::Matrix;

use super::memory::packed;
use super::{Batch, Tensors, Version, Which};
use crate::experts::Bank;
use crate::simd::Isa;
use crate::simd::peak::{Order, read};

/// Memory that weights lie in.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    /// As stored.
    Tensors(&'a Tensors),
    /// Packed.
    Bank(&'a Bank),
}

impl<'a> Form<'a> {
    /// Bytes of one matrix: codes, scales and biases, or all of them as packed.
    fn bytes(self, which: Which, expert: usize) -> [&'a [u8]; 3] {
        match self {
            Form::Tensors(tensors) => {
                let Matrix { weight, scales, biases, .. } = tensors.matrix(which, expert);
                [weight, scales, biases]
            }
            Form::Bank(bank) => [packed(bank, which).expert(expert).bytes, &[], &[]],
        }
    }
}

/// Reads in one order.
pub struct Reader<'a> {
    /// Instruction set.
    pub isa: Isa,
    /// What is read.
    pub form: Form<'a>,
    /// In which order.
    pub order: Order,
    /// Depends on everything read, so that nothing is left out.
    pub sum: AtomicU64,
}

/// Pieces of a matrix, so that threads finish together.
const PIECES: usize = 4;

impl Version for Reader<'_> {
    fn phases(&self) -> usize {
        1
    }

    fn items(&self, batch: &Batch, _phase: usize) -> usize {
        batch.groups.len() * 3 * PIECES
    }

    fn run(&self, batch: &Batch, _phase: usize, item: usize, _worker: usize) {
        let (matrix, piece) = (item / PIECES, item % PIECES);
        let which = [Which::Gate, Which::Up, Which::Down][matrix % 3];
        for bytes in self.form.bytes(which, batch.groups[matrix / 3].expert) {
            let range = bytes.len() * piece / PIECES..bytes.len() * (piece + 1) / PIECES;
            self.sum.fetch_xor(read(self.isa, &bytes[range], self.order), Ordering::Relaxed);
        }
    }

    fn out(&self, _row: usize) -> &[f32] {
        &[]
    }
}
