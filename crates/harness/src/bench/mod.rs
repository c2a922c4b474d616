//! `bench`: how fast a model runs here, and how far that is from what the machine can deliver.
//!
//! [`bench()`] loads a model once and gives a [`BenchRow`] per test; a [`Floor`] (measured by
//! [`measure_floor`], kept by [`FloorCache`]) says what the memory and the arithmetic of the machine can do
//! at best; [`compare()`] pairs rows of two runs and refuses unlike ones.

mod cache;
mod compare;
mod cost;
mod decode;
mod floor;
mod measure;
mod ops;
mod plots;
mod row;
mod run;
mod table;
mod watch;

pub use cache::FloorCache;
pub use compare::{Comparison, Pair, compare, parse_rows};
pub use cost::{Model as BenchModel, Reads, SAMPLE as HASH_SAMPLE};
pub use decode::Sampling as BenchSampling;
pub use floor::{Bandwidth, Compute, Floor, OTHERS_MAX, SIZES, size_class};
pub use measure::{measure_floor, measure_missing, thread_counts};
pub use ops::{OpTime, StepTime};
pub use plots::{Plots, plots};
pub use row::{Best, Build, Host, Kind, Load, REPEATS_MIN, Row as BenchRow, SPREAD_MAX, Spread, Test};
pub use run::{BenchOptions, bench};
pub use table::{csv, markdown};
pub use watch::Others;
