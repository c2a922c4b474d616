//! What can go wrong while writing a synthetic model.

use std::path::{Path, PathBuf};

use super::GRAMMAR;

/// Errors of [`synth`](fn@super::synth).
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// Outside the grammar.
    #[error("`{spec}`: {what}\n{GRAMMAR}")]
    Spec {
        /// As given.
        spec: String,
        /// What is wrong with it.
        what: String,
    },
    /// The folder is in use.
    #[error("{0}: is not empty; name a new folder, or remove this one")]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl SynthError {
    /// Names the file an i/o error is about.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SynthError + use<> {
        let path = path.to_owned();
        move |source| SynthError::Io { path, source }
    }
}
