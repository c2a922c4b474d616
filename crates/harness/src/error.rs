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
