//! The driver: looked for without a panic; its devices and what they are.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::told;

/// Oldest driver that has every function called here, as it counts itself: CUDA 12.4.
const OLDEST: i32 = 12_040;
/// Oldest devices the kernels are written for: Ampere.
const OLDEST_MAJOR: i32 = 8;
/// Oldest devices whose launches may overlap: Hopper.
const OVERLAP_MAJOR: i32 = 9;

/// Why there is no device to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No driver library.
    Driver,
    /// A driver that lacks functions: the CUDA version it supports.
    TooOld(i32),
    /// The driver refuses, in its words.
    Refused(String),
    /// A driver, and no device.
    Device,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Driver => f.write_str("no NVIDIA driver is installed (libcuda.so was not found)"),
            Missing::TooOld(version) => {
                let [found, needed] = [*version, OLDEST].map(cuda_version);
                write!(f, "the NVIDIA driver is too old: it supports CUDA {found}, and {needed} is needed")
            }
            Missing::Refused(said) => write!(f, "the NVIDIA driver refuses to start: {said}"),
            Missing::Device => f.write_str("the NVIDIA driver finds no GPU"),
        }
    }
}

fn cuda_version(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// A driver that has started.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    version: i32,
}

/// A device, not yet in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Number, as in `cuda:N`.
    pub index: usize,
    /// What the driver calls it.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// Bytes of memory in all.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: u32,
}

impl DeviceInfo {
    /// What NVRTC calls the architecture. From Hopper on the kernels may use what only that one generation
    /// has.
    pub fn arch(&self) -> String {
        let (major, minor) = self.capability;
        format!("sm_{major}{minor}{}", if major >= 9 { "a" } else { "" })
    }

    /// Whether a launch may begin while the one before it ends: from Hopper on.
    pub fn overlaps(&self) -> bool {
        self.capability.0 >= OVERLAP_MAJOR
    }

    /// Whether the kernels are written for it.
    pub fn supported(&self) -> bool {
        self.capability.0 >= OLDEST_MAJOR
    }
}

impl Driver {
    /// Starts the driver if there is one.
    ///
    /// # Errors
    /// Why there is no device.
    pub fn find() -> Result<Driver, Missing> {
        // SAFETY: opens and closes the library by its well-known names, which runs its initialisers; that is
        // what a driver library is installed for.
        if !unsafe { sys::is_culib_present() } {
            return Err(Missing::Driver);
        }
        let mut version = 0;
        // SAFETY: the library is there (just seen), every version of it has this function, and it writes one
        // int.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        asked.result().map_err(|error| Missing::Refused(format!("{:?}", error.0)))?;
        if version < OLDEST {
            return Err(Missing::TooOld(version));
        }
        match result::init() {
            Ok(()) => Ok(Driver { version }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Err(Missing::Device),
            Err(error) => Err(Missing::Refused(told(error))),
        }
    }

    /// The CUDA version it supports, such as "13.0".
    pub fn version(&self) -> String {
        cuda_version(self.version)
    }

    /// All devices.
    ///
    /// # Errors
    /// There is none, or the driver does not say.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>, Missing> {
        let refused = |error| Missing::Refused(told(error));
        let count = usize::try_from(result::device::get_count().map_err(refused)?).unwrap_or(0);
        let devices: Result<Vec<_>, _> = (0..count).map(DeviceInfo::of).collect();
        match devices.map_err(refused)? {
            none if none.is_empty() => Err(Missing::Device),
            devices => Ok(devices),
        }
    }
}

impl DeviceInfo {
    fn of(index: usize) -> Result<DeviceInfo, DriverError> {
        let device = result::device::get(index as i32)?;
        // SAFETY: the handle came from the driver just now.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        Ok(DeviceInfo {
            index,
            name: result::device::get_name(device)?.trim_end_matches('\0').to_owned(),
            capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            // SAFETY: as above.
            memory: unsafe { result::device::total_mem(device) }?,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.unsigned_abs(),
        })
    }
}

/// A device in use: its context and the one stream on which everything runs in order.
#[derive(Clone)]
pub struct Gpu {
    /// Its properties.
    pub info: DeviceInfo,
    /// Whether launches of a step overlap.
    pub overlap: bool,
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
}

impl Gpu {
    /// Takes the device into use; launches overlap if wanted and possible.
    ///
    /// # Errors
    /// The driver refuses, for instance since another process has the device for itself.
    pub fn open(info: &DeviceInfo, overlap: bool) -> Result<Gpu, DriverError> {
        let context = CudaContext::new(info.index)?;
        // SAFETY: the events are there to order several streams that share cudarc's slices. None is made
        // here: memory is one `Arena`, whose copies are ordered by their stream and waited for before
        // anything else touches it.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream()?;
        Ok(Gpu { info: info.clone(), overlap: overlap && info.overlaps(), context, stream })
    }

    /// Another stream of the same device, for uploads.
    pub fn another_stream(&self) -> Result<Gpu, DriverError> {
        Ok(Gpu {
            info: self.info.clone(),
            overlap: self.overlap,
            context: Arc::clone(&self.context),
            stream: self.context.new_stream()?,
        })
    }

    /// Bytes that can be had now, and in all.
    pub fn memory(&self) -> Result<(usize, usize), DriverError> {
        self.context.mem_get_info()
    }

    /// Lets this thread call the driver for this device.
    pub fn bind(&self) -> Result<(), DriverError> {
        self.context.bind_to_thread()
    }

    /// Waits until everything on the stream is done.
    pub fn wait(&self) -> Result<(), DriverError> {
        self.stream.synchronize()
    }
}
