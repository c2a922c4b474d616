//! Runs models for people: loading, sampling, generation.
//!
//! Invariant: knows tokens and text, but neither HTTP nor tensors. Start reading at [`Model`].

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod draw_tests;
mod error;
mod generate;
mod load;
mod model;

pub use amoeba_backend::{
    Activations, CONTEXT_DEFAULT, Device, KernelCache, KvType, Limits, LoadOptions, RepackCache, Row,
};
pub use amoeba_backend_cuda as cuda;
pub use amoeba_kernels::sample::Sampling;
pub use amoeba_text::{Format, Piece, ToolCall};
pub use error::Error;
pub use generate::{Finish, Generation, Request, Stats};
pub use load::{Checked, load_executable, open};
pub use model::{Model, Prompt};
