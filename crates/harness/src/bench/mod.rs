//! `bench`: how fast a model runs here, and how far that is from what the memory can deliver.

mod floor;
mod row;
mod run;

pub use floor::{Bandwidth, Floor, measure_floor};
pub use row::{Row as BenchRow, Spread, Test};
pub use run::{BenchOptions, bench};
