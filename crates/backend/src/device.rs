//! Where a model runs.

use std::fmt;
use std::str::FromStr;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The first GPU that takes the model, or the CPU.
    Auto,
    /// Vectorised CPU kernels.
    #[default]
    Cpu,
    /// The NVIDIA GPU of that number.
    Cuda(usize),
    /// The scalar f64 interpreter: slow, for checking.
    Reference,
}

impl Device {
    /// Devices of this build by name; `cuda:N` is another.
    pub const NAMES: [(&'static str, Device); 4] = [
        ("auto", Device::Auto),
        ("cpu", Device::Cpu),
        ("cuda", Device::Cuda(0)),
        ("reference", Device::Reference),
    ];
}

impl FromStr for Device {
    type Err = ();

    /// One of [`Device::NAMES`], or `cuda:N`.
    fn from_str(name: &str) -> Result<Device, ()> {
        let number =
            |number: &str| number.parse().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()));
        let numbered = name.strip_prefix("cuda:").and_then(number).map(Device::Cuda);
        let named = Device::NAMES.iter().find(|(known, _)| *known == name).map(|(_, device)| *device);
        numbered.or(named).ok_or(())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Reference => f.write_str("reference"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_name() {
        for (name, device) in Device::NAMES.into_iter().chain([("cuda:3", Device::Cuda(3))]) {
            assert_eq!(name.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for name in ["gpu", "cuda:", "cuda:x", "cuda:+1", "cuda:-1", "cuda 1", ""] {
            assert_eq!(name.parse::<Device>(), Err(()), "{name}");
        }
    }
}
