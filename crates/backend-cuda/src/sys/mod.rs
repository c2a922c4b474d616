//! Everything that crosses into the driver or NVRTC, behind safe functions: the only unsafe code of this
//! crate.

mod driver;
mod launch;
mod memory;
mod nvrtc;
mod ring;

pub use driver::{DeviceInfo, Driver, Gpu, Missing};
pub use launch::{Code, Graph, Launch, put_all};
pub use memory::{Arena, Pinned};
pub use nvrtc::Nvrtc;
pub use ring::TokenRing;

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
