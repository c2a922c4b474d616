//! What can go wrong between a config and a plan.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config or the tensors are at fault.
    #[error(transparent)]
    Checkpoint(#[from] amoeba_checkpoint::Error),
    /// No row in the family table.
    #[error("config.json: model_type `{found}` is not a family this build can run (known: {known})")]
    UnknownFamily {
        /// What the config says.
        found: String,
        /// All names of the table.
        known: String,
    },
    /// A known family with a feature this build lacks.
    #[error("config.json: unsupported {0}")]
    Unsupported(String),
    /// Numbers that contradict each other.
    #[error("config.json: {0}; the file is damaged or not for this family")]
    Inconsistent(String),
}
