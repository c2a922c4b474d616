//! The one error type of the library.
use std::path::PathBuf;

/// Why a model could not be found, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name means no model that is here.
    #[error(transparent)]
    Hub(#[from] amoeba_hub::Error),
    /// The model cannot be loaded, or a generation failed.
    #[error(transparent)]
    Engine(#[from] amoeba_engine::Error),
    /// The bundled model is nowhere to be found.
    #[error(
        "the bundled model {} was not found; looked for\n{}  name a model, or set AMOEBA_MODELS to the \
         folder that holds it",
        crate::BUNDLED,
        lines(looked)
    )]
    NoBundledModel {
        /// The folders that were tried.
        looked: Vec<PathBuf>,
    },
}

fn lines(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("    {}\n", path.display())).collect()
}
