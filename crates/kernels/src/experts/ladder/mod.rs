//! The ladder of `experts`: the same op from naive to what the engine runs, each step in a file that holds
//! what it changes (numbers are those of the table; steps that taught nothing are gone). Figures and reasons
//! are in `../NOTES.md`; `cargo xtask bench-op experts` measures them again.
//!
//! Compiled for tests and under the feature `ladder` only; the product does not carry it. [`unfused`] and
//! [`fused`] are the two orders of work (phases of independent items), `v0_naive` to `v3_digits` the kernels
//! of the first, and [`drive()`] runs a step on any number of threads.

mod cpu;
mod drive;
mod fused;
mod memory;
mod reader;
mod unfused;
mod v0_naive;
mod v2_packed;
mod v3_digits;

pub use drive::drive;
pub use fused::Fused;
pub use memory::{Batch, Group, Memory, Shape, Tensors, Which};
pub use reader::{Form, Reader};
pub use unfused::{Product, Rows, Unfused};

use amoeba_checkpoint::Format;

use crate::simd::Isa;

/// One way to run a layer of experts: phases of independent items, each phase after the one before.
pub trait Version: Sync {
    /// Phases of a layer.
    fn phases(&self) -> usize;

    /// Items of a phase.
    fn items(&self, batch: &Batch, phase: usize) -> usize;

    /// Runs one item. Items of a phase run in any order, at the same time.
    fn run(&self, batch: &Batch, phase: usize, item: usize, worker: usize);

    /// `[hidden]` of a row once the last phase is done.
    fn out(&self, row: usize) -> &[f32];
}

/// A rung of the ladder.
pub struct Step<'a> {
    /// As in the table.
    pub name: &'static str,
    /// The step itself; `None` if it does not know the format.
    pub version: Option<Box<dyn Version + 'a>>,
    /// The memory it reads.
    pub form: Form<'a>,
}

/// All steps, from the first to the last, with room for `rows` rows and `workers` workers.
pub fn steps(memory: &Memory, isa: Isa, rows: usize, workers: usize) -> Vec<Step<'_>> {
    let (shape, tensors, whole) = (memory.shape, &memory.tensors, &memory.whole);
    let format = memory.format;
    let mut all = Vec::new();
    let mut add = |name, version, form| all.push(Step { name, version, form });
    let naive = v0_naive::Naive { tensors };
    add("v0 naive", unfused::step(isa, Some(naive), shape, rows), Form::Tensors(tensors));
    let packed = v2_packed::PackedF32::new(isa, whole, format);
    add("v2 sixteen rows side by side", unfused::step(isa, packed, shape, rows), Form::Bank(whole));
    let digits = v3_digits::Digits::new(isa, whole, format);
    add("v3 integer digits", unfused::step(isa, digits, shape, rows), Form::Bank(whole));
    let engine = Box::new(Fused::new(isa, &memory.items, shape, rows, workers));
    add("v6 fused, 16 items (the engine)", Some(engine), Form::Bank(&memory.items));
    all
}

/// Bits of affine codes that fill words without a second plane, the ones steps 2 and 3 know.
fn plain_bits(format: Format) -> Option<u8> {
    match format {
        Format::Affine { bits: bits @ (2 | 4 | 8), .. } => Some(bits),
        _ => None,
    }
}
