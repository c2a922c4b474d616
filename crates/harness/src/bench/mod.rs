//! `bench`: how fast a model runs here, and how far that is from what the machine can deliver.
//!
//! [`bench()`] loads a model once and gives a [`BenchRow`] per test; a [`Floor`] (measured by
//! [`measure_floor`], kept by [`FloorCache`]) says what the memory and the arithmetic of the machine can do
//! at best; [`compare()`] pairs rows of two runs and refuses unlike ones.

mod cache;
mod case;
mod compare;
mod cost;
mod decode;
mod floor;
mod measure;
mod ops;
mod parts;
mod plots;
mod row;
mod run;
mod spread;
mod steps;
mod subject;
mod table;
mod watch;

pub use cache::FloorCache;
pub use compare::{Comparison, Pair, compare, parse_rows};
pub use cost::Model as BenchModel;
pub use floor::{Bandwidth, Compute, Floor, SIZES, Schema, size_class};
pub use measure::{measure_floor, measure_missing, thread_counts};
pub use parts::{OpTime, OpTimes, Reads};
pub use plots::{Plots, plots};
pub use row::Row as BenchRow;
pub use run::{BenchOptions, bench};
pub use spread::Spread;
pub use subject::{Build, Host, Kind, Test};
pub use table::{csv, markdown};
pub use watch::Others;
