//! From a plan to a model on a device.

use amoeba_backend::gpu::{self, DeviceFacts, Fault, Gpu as GpuBackend};
use amoeba_backend::{Device, KernelCache, LoadOptions, Loaded};
use amoeba_checkpoint::Checkpoint;
use amoeba_plan::Plan;

use crate::cache::Kept;
use crate::compile::Compiler;
use crate::driver::CudaDriver;
use crate::sys::{Gpu, told};
use crate::{DeviceInfo, Driver, Error, Libraries, Missing, Nvrtc};

/// A loaded model.
pub type Cuda = Loaded<GpuBackend<CudaDriver>>;

/// A device made ready for a model.
pub type Ready = gpu::Ready<CudaDriver>;

/// Whether launches are to overlap: unless `AMOEBA_PDL` is 0, which is there to find out what that brings.
pub fn overlap_from_env() -> bool {
    std::env::var_os("AMOEBA_PDL").is_none_or(|value| value != "0")
}

/// What this machine has of CUDA.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The driver and its devices, or why there is none.
    pub devices: Result<(Driver, Vec<DeviceInfo>), Missing>,
    /// The compiler; looked for only if there is a device.
    pub nvrtc: Option<Nvrtc>,
}

impl Machine {
    /// Looks for driver, devices and compiler. Never fails: what is missing is part of the answer.
    pub fn find(libraries: &Libraries) -> Machine {
        let devices = Driver::find().and_then(|driver| Ok((driver, driver.devices()?)));
        let nvrtc = devices.is_ok().then(|| Nvrtc::find(libraries.folders())).flatten();
        Machine { devices, nvrtc }
    }

    /// A device that can be used, with what is needed for it.
    fn device(&self, index: usize) -> Result<(Driver, &DeviceInfo, &Nvrtc), Error> {
        let (driver, devices) = self.devices.as_ref().map_err(|missing| Error::Missing(missing.clone()))?;
        let device = devices.get(index).ok_or(Error::NoSuchDevice { asked: index, found: devices.len() })?;
        if !device.supported() {
            return Err(Error::TooOld(format!("cuda:{index} ({})", device.name)));
        }
        Ok((*driver, device, self.nvrtc.as_ref().ok_or(Error::NoNvrtc)?))
    }
}

/// A device in use.
pub(crate) struct Opened {
    pub driver: CudaDriver,
    /// "cuda:0 (NVIDIA H200, sm_90a, CUDA 13.0)".
    pub name: String,
    pub facts: DeviceFacts,
}

/// Takes a device into use.
pub(crate) fn open(
    index: usize,
    libraries: &Libraries,
    cache: Option<&KernelCache>,
    overlap: bool,
    notice: fn(&str),
) -> Result<Opened, Error> {
    let machine = Machine::find(libraries);
    let (driver, device, nvrtc) = machine.device(index)?;
    let gpu = Gpu::open(device, overlap).map_err(|error| Fault(told(error)));
    let gpu = gpu.map_err(gpu::Error::driver("taking the device into use"))?;
    let (arch, (major, minor)) = (device.arch(), device.capability);
    let words = format!("{}, {arch}, CUDA {}", device.name, driver.version());
    let name = format!("cuda:{} ({words})", device.index);
    let facts =
        DeviceFacts { multiprocessors: device.multiprocessors, arch: (major * 10 + minor).unsigned_abs() };
    let compiler = Compiler { nvrtc: nvrtc.clone(), arch, cache: cache.cloned().map(Kept) };
    Ok(Opened { driver: CudaDriver::new(gpu, compiler, words, notice), name, facts })
}

/// Takes a device into use for a plan: all that can be checked before kernels are compiled and weights sent.
///
/// # Errors
/// No device that can be used, an op without a kernel, too little memory, a tensor missing or misshapen, or
/// options that the model or a GPU does not take.
pub fn ready(plan: &Plan, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Ready, Error> {
    gpu::Ready::new(plan, checkpoint, options, || {
        let index = if let Device::Cuda(index) = options.device { index } else { 0 };
        let libraries = options.libraries.clone().map_or_else(Libraries::from_env, Libraries::in_folders);
        let overlap = options.overlap.unwrap_or_else(overlap_from_env);
        let opened = open(index, &libraries, options.kernel_cache.as_ref(), overlap, options.notice)?;
        Ok((opened.driver, opened.facts))
    })
}
