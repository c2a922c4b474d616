//! `gate`: whether a fast path may be trusted. One check per file; docs/gate.md has the bounds with their
//! derivation.
//!
//! What is judged comes from a [`Loader`], so that a test can hand in an executable that is broken in a known
//! way and see the right check fail; the truth (`Reference`) is loaded here and nowhere else.

mod bits;
mod check;
mod errors;
mod lab;
mod lockstep;
mod parity;
mod path;
mod report;
mod speed;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use amoeba_backend::Executable;
use amoeba_checkpoint::Checkpoint;
use amoeba_engine::LoadOptions;

use crate::Error;
use crate::bench::Build;
use crate::trace::Summary;
use lab::Lab;

pub use check::{Check, Verdict};
pub use report::Report;

/// Loads the model under test: path, threads and sizes as the options say.
pub type Loader<'a> = &'a dyn Fn(&LoadOptions) -> Result<Box<dyn Executable>, Error>;

/// What to judge, and how thoroughly.
pub struct GateOptions<'a> {
    /// What the report calls the model.
    pub name: String,
    /// Goes into the report.
    pub build: Build,
    /// Device, threads, instruction set, path; context, rows and sequences follow from the checks.
    pub load: LoadOptions,
    /// What greedy answers and distributions are held against.
    pub against: Against,
    /// Prompts; random tokens are added.
    pub prompts: Vec<Prompt>,
    /// Fewer tokens; timings are reported but cannot fail the gate.
    pub fast: bool,
    /// Whether to measure times.
    pub bench: bool,
    /// A stored trace that phases, bytes and idle time are held against too.
    pub baseline: Option<Summary>,
    /// Nanoseconds since some moment.
    pub clock: &'a dyn Fn() -> u64,
    /// Called with the name of each check before it runs.
    pub progress: &'a dyn Fn(&str),
}

/// What greedy answers and distributions are held against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Against {
    /// The unfused path of the same device.
    #[default]
    Unfused,
    /// The exact reference.
    Reference,
    /// Logits that [`crate::eval`] recorded.
    Record(PathBuf),
}

/// Tokens with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What the report calls it.
    pub name: String,
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// Checks of one kind.
type Group = fn(&Lab<'_>) -> Result<Vec<Check>, Error>;

/// Runs all checks.
///
/// # Errors
/// The model cannot be loaded or a step fails. Differences are not errors: see [`Report::passed`].
pub fn gate(
    checkpoint: &Arc<Checkpoint>,
    options: &GateOptions<'_>,
    loader: Loader<'_>,
) -> Result<Report, Error> {
    let started = Instant::now();
    let lab = Lab::new(checkpoint, options, loader)?;
    let (device, path) = {
        let candidate = lab.candidate(|_| {})?;
        (candidate.describe(), candidate.path(1).to_string())
    };
    let groups: [(&str, Group); 6] = [
        ("path", path::check),
        ("errors against the reference", errors::check),
        ("bits", bits::check),
        ("parity", parity::check),
        ("speed", speed::check),
        ("trace", trace::check),
    ];
    let mut checks = Vec::new();
    for (group, check) in groups {
        (options.progress)(group);
        checks.extend(check(&lab)?);
    }
    let against = match &options.against {
        Against::Unfused => "the unfused path".to_owned(),
        Against::Reference => "the reference".to_owned(),
        Against::Record(file) => file.display().to_string(),
    };
    let seconds = started.elapsed().as_secs_f64();
    Ok(Report { build: options.build.clone(), model: lab.model, device, path, against, checks, seconds })
}
