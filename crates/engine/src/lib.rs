//! Runs models for people: loading, sampling, generation.
//!
//! Invariant: knows tokens and text, but neither HTTP nor tensors. Start reading at [`Model`].

#[cfg(test)]
mod call_tests;
mod device;
#[cfg(test)]
mod draw_tests;
mod error;
mod generate;
mod load;
mod model;

pub use amoeba_backend::{Activations, KvType, Limits, RepackCache, Row};
pub use amoeba_backend_cuda as cuda;
pub use amoeba_kernels::sample::Sampling;
pub use amoeba_text::{Format, Piece, ToolCall};
pub use device::Device;
pub use error::Error;
pub use generate::{Finish, Generation, Request, Stats};
pub use load::{CONTEXT_DEFAULT, LoadOptions, load_executable, open, resolve};
pub use model::{Model, Prompt};
