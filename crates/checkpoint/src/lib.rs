//! Reads MLX checkpoints: a model folder becomes a validated, typed `Checkpoint`.

mod format;
mod matrix;

pub use format::{Float, Format};
pub use matrix::Matrix;
