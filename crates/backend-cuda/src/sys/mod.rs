//! Everything that crosses into the driver or NVRTC, behind safe functions: the only unsafe code of this crate.

mod chain;
mod driver;
mod launch;
mod memory;
mod nvrtc;

pub use chain::{Chain, TokenRing};
pub use driver::{DeviceInfo, Driver, Gpu, Missing};
pub use launch::{Code, Graph, Launch, put_all};
pub use memory::{Arena, Pinned, Stage};
pub use nvrtc::Nvrtc;

use cudarc::driver::DriverError;

/// What the driver calls an error, and what it says about it.
pub fn told(error: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
    };
    match (text(error.error_name()), text(error.error_string())) {
        (name, said) if said.is_empty() => format!("{name} ({:?})", error.0),
        (name, said) => format!("{name}: {said}"),
    }
}
