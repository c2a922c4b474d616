//! What can go wrong before there is a verdict.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder has no expectations.
    #[error("{0}: no expected.json; `verify` wants a folder with expected.json and expected.safetensors")]
    NoFixture(PathBuf),
    /// No such op or buffer.
    #[error("{0}")]
    Dump(String),
    /// Nothing to predict.
    #[error("the text is {0} tokens long; perplexity needs at least 2")]
    TooShort(usize),
    /// A file of recorded logits is damaged, or is something else.
    #[error("{0}")]
    Record(String),
    /// No such file, or not for us to read.
    #[error("{0}")]
    Unreadable(String),
    /// A record of another model.
    #[error("{0}")]
    Foreign(String),
    /// A file cannot be written.
    #[error("{0}")]
    Unwritable(String),
    /// A device that does not show its ops cannot be judged op by op.
    #[error(
        "the device showed {shown} of {all} ops to a probe; `gate` cannot judge a device that hides some"
    )]
    Hidden {
        /// Ops shown.
        shown: usize,
        /// Ops of the program.
        all: usize,
    },
    /// A trace and a baseline that cannot be compared.
    #[error("the baseline is of something else: {0}")]
    Baseline(String),
    /// Files at fault.
    #[error(transparent)]
    Checkpoint(#[from] amoeba_checkpoint::Error),
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Engine(#[from] amoeba_engine::Error),
    /// A step failed.
    #[error(transparent)]
    Backend(#[from] amoeba_backend::Error),
    /// The model cannot be planned.
    #[error(transparent)]
    Plan(#[from] amoeba_plan::Error),
}
