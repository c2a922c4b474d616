//! What can go wrong before a model runs on a device.

use amoeba_backend::gpu;

use crate::sys::Missing;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No driver, or no device.
    #[error("{0}; run on the CPU with --device cpu, or see `amoeba doctor`")]
    Missing(Missing),
    /// No compiler for kernels.
    #[error(
        "NVRTC, which compiles the kernels, was not found; install it (`pip install nvidia-cuda-nvrtc`) or \
         put the folder of libnvrtc.so into LD_LIBRARY_PATH"
    )]
    NoNvrtc,
    /// A device number that does not exist.
    #[error("there is no device cuda:{asked}; devices: cuda:0{}", match found {
        1 => String::new(),
        n => format!(" to cuda:{}", n - 1),
    })]
    NoSuchDevice {
        /// Number asked for.
        asked: usize,
        /// Devices found.
        found: usize,
    },
    /// A device older than the kernels are written for.
    #[error("{0} is too old: kernels need compute capability 8.0 (Ampere) or later")]
    TooOld(String),
    /// A device that the model does not suit, or that fails.
    #[error(transparent)]
    Gpu(#[from] gpu::Error),
}
