//! Runs decode programs on NVIDIA GPUs. Driver and NVRTC are looked for when a model is loaded: a build needs neither, and a
//! machine without them is told so in one line.
//!
//! Invariant: no maths here. What is computed is in `amoeba_kernels::cuda`; this crate compiles it for the device at hand,
//! lays out one piece of device memory, and puts launches in order. Unsafe code is in `sys` alone. Start reading at
//! [`Cuda::load`].

mod arena;
mod cache;
mod compile;
mod error;
mod executable;
mod floor;
mod libraries;
mod load;
mod probe;
mod program;
mod sampling;
mod steps;
mod sys;
mod tracer;
mod upload;

pub use error::{Error, Need};
pub use executable::Cuda;
pub use floor::{Floor, measure_floor};
pub use libraries::Libraries;
pub use load::{Machine, Ready, overlap_from_env};
pub use sys::{DeviceInfo, Driver, Missing, Nvrtc};
