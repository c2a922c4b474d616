//! Reads MLX checkpoints: a model folder becomes a validated, typed [`Checkpoint`].
//!
//! **Owns** everything between bytes on disk and borrowed [`Matrix`] views: `config.json`, the shard index,
//! safetensors headers, memory maps, weights made from a seed, and the derivation of each matrix's
//! [`Format`].
//!
//! **Invariant: all hostile input ends here.** Every number is bounded where it is read, every product is
//! checked, and what this crate hands out can be used without looking again: slices lie inside their file and
//! have the lengths their format promises. Nothing in a folder is ever executed, nothing outside the folder
//! is opened but the targets of symlinks placed in it, and what is allocated before validation stays below
//! twice the file plus 64 MiB. Damaged input is an [`Error`] that names file and tensor or key, never a
//! panic.
//!
//! **Never here:** devices, arithmetic on weights (beyond float widening and the finiteness scan), model
//! architectures.
//!
//! Start reading at [`Checkpoint::open`] (`checkpoint.rs`), then `header.rs` (one file), `folder.rs` (which
//! files), `layout.rs` (how a matrix is packed).

mod checkpoint;
mod config;
mod dtype;
mod error;
mod folder;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod index;
mod json;
mod layout;
mod matrix;
mod quant;
mod seeded;
mod shard;
mod small;
mod values;
mod weights;

pub use checkpoint::{Checkpoint, Tensor};
pub use config::Config;
pub use dtype::DType;
pub use error::{Error, ErrorKind, shown, shown_to};
pub use folder::missing_weights;
pub use format::{Float, Format};
pub use index::{TensorIndex, TensorInfo};
pub use json::read_object;
pub use matrix::Matrix;
pub use quant::{Choice, Mode, Packing, Quantisation};
pub use seeded::splitmix64;
pub use small::read_small;
