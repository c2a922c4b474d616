//! The kinds of phases, one file each: how the workers share out the work. The maths is in `amoeba_kernels`.

pub mod attention;
pub mod experts;
pub mod products;
pub mod recurrent;
pub mod rows;

use std::ops::Range;

use amoeba_plan::{Group, Stage};

use super::{Model, Step};

/// Independent items of work; all are done before the next phase starts. A new kind is a type in this folder
/// and a line in `compile.rs`.
pub trait Phase: Send + Sync {
    /// Serial start of the phase in a step of at least one row; its number of items, possibly none.
    fn items(&self, step: &Step<'_>) -> usize;

    /// Runs one item.
    fn item(&self, step: &Step<'_>, item: usize, worker: usize);

    /// Parts that each item consists of, one after another. Probes and recordings look in between them; a
    /// step may ask for some of them only ([`Step::parts`]).
    fn parts(&self) -> usize {
        1
    }

    /// What a recording shows of a part of an item: the op, if it serves a single one, and the stage.
    fn span(&self, step: &Step<'_>, item: usize, part: usize) -> (Option<usize>, Stage);

    /// Ops whose results are complete once that part of all items is done.
    fn completes(&self, _part: usize) -> Range<usize> {
        0..0
    }

    /// The group whose ops run together, if this is more than op after op.
    fn together(&self) -> Option<&Group> {
        None
    }
}
