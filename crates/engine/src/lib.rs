//! Runs models for people: loading, sampling, generation, and sequences that share a device.
//!
//! Invariant: knows tokens and text, but neither HTTP nor tensors. Start reading at [`Model`], then
//! [`Engine`].

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod draw_tests;
mod error;
mod generate;
mod load;
mod model;
mod scheduler;
#[cfg(test)]
mod scheduler_tests;
mod session;
mod slots;

pub use amoeba_backend::{
    Activations, CONTEXT_DEFAULT, Device, KernelCache, KvType, Limits, LoadOptions, RepackCache, Row,
};
pub use amoeba_backend_cuda as cuda;
pub use amoeba_kernels::sample::Sampling;
pub use amoeba_text::{Format, Piece, ToolCall};
pub use error::Error;
pub use generate::Generation;
pub use load::{Checked, load_executable, open};
pub use model::{Model, Prompt};
pub use scheduler::{Engine, EngineOptions, Event, Progress};
pub use session::{Finish, Request, Session, SessionId, Stats};
