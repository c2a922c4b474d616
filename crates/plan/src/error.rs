//! What can go wrong between a config and a plan. What messages quote of a file is escaped and cut.

use amoeba_checkpoint::{shown, shown_to};

/// Longest message that may quote a file, in characters.
const MESSAGE_CHARS: usize = 600;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config or the tensors are at fault.
    #[error(transparent)]
    Checkpoint(#[from] amoeba_checkpoint::Error),
    /// No row in the family table.
    #[error("config.json: model_type `{}` is not a family this build can run (known: {known})", shown(found))]
    UnknownFamily {
        /// What the config says.
        found: String,
        /// All names of the table.
        known: String,
    },
    /// A known family with a feature this build lacks.
    #[error("config.json: unsupported {}", shown_to(.0, MESSAGE_CHARS))]
    Unsupported(String),
    /// Numbers that contradict each other.
    #[error("config.json: {}; the file is damaged or not for this family", shown_to(.0, MESSAGE_CHARS))]
    Inconsistent(String),
    /// Weights as the model's makers store them, which MLX does not.
    #[error(
        "tensor `{}`: these are weights in the layout of the original repository, not of MLX; convert them: \
         mlx_lm.convert --hf-path {} -q",
        shown(tensor),
        shown(dir)
    )]
    Original {
        /// A tensor that tells it.
        tensor: String,
        /// The folder.
        dir: String,
    },
}
