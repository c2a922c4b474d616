//! Runs decode programs on NVIDIA GPUs. Driver and NVRTC are looked for when a model is loaded: a build needs
//! neither, and a machine without them gets one line that says so.
//!
//! Invariant: no maths here, and nothing that another GPU would need too: that is `amoeba_backend::gpu`,
//! whose `Driver` this crate implements. It finds driver and compiler, compiles kernels for the device at
//! hand, and makes launches and graphs. Unsafe code is in `sys` alone. Start reading at [`ready`].

mod cache;
mod compile;
mod driver;
mod error;
mod floor;
mod libraries;
mod load;
mod sys;

pub use driver::CudaDriver;
pub use error::Error;
pub use floor::{Floor, measure_floor};
pub use libraries::Libraries;
pub use load::{Cuda, Machine, Ready, overlap_from_env, ready};
pub use sys::{DeviceInfo, Driver, Missing, Nvrtc};
