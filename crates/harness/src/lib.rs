//! Proves things about models and backends: `verify` compares a folder with its recorded results, [`gate`]
//! judges a fast path, [`eval`] measures perplexity and distances between distributions, [`mod@bench`] speed.
//!
//! Start reading at [`verify`] or [`gate::gate`].

pub mod bench;
mod dump;
mod error;
pub mod eval;
mod fixture;
pub mod gate;
mod numbers;
pub mod plot;
mod probe;
mod synth;
pub mod trace;
mod verify;

pub use dump::{Dump, DumpOptions, dump};
pub use error::Error;
pub use fixture::Fixture;
pub use synth::{GRAMMAR as SYNTH_GRAMMAR, SynthError, synth};
pub use verify::{Check, Divergence, Report, VerifyOptions, verify};
