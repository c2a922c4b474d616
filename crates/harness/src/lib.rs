//! Proves things about models and backends: `verify` compares a folder with its recorded results.
//!
//! Start reading at [`verify`].

pub mod bench;
mod dump;
mod error;
mod fixture;
mod perplexity;
pub mod plot;
mod probe;
mod synth;
pub mod trace;
mod verify;

pub use dump::{Dump, DumpOptions, dump};
pub use error::Error;
pub use fixture::Fixture;
pub use perplexity::{Perplexity, perplexity};
pub use synth::{GRAMMAR as SYNTH_GRAMMAR, SynthError, synth};
pub use verify::{Check, Divergence, Report, VerifyOptions, verify};
