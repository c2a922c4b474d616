//! From a plan to a model on a device.

use std::sync::Arc;

use amoeba_backend::{Activations, Executable, KvType, Limits, PackProgress};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::cuda::Setting;
use amoeba_plan::{PathChoice, Plan};

use crate::arena::Layout;
use crate::compile::Compiler;
use crate::program::Program;
use crate::steps::Tools;
use crate::sys::{Arena, Gpu};
use crate::upload::upload;
use crate::{Cuda, DeviceInfo, Driver, Error, KernelCache, Libraries, Missing, Nvrtc};

/// Device memory left alone: loaded code, the driver's own, and what else is on the device needs some.
const SPARE: usize = 256 << 20;

/// How to load for a CUDA device.
#[derive(Clone, Debug)]
pub struct CudaOptions {
    /// Which device.
    pub device: usize,
    /// Path through the experts.
    pub path: PathChoice,
    /// Sizes to reserve.
    pub limits: Limits,
    /// What keys and values are stored as.
    pub kv: KvType,
    /// What activations are rounded to in products of more than eight rows.
    pub activations: Activations,
    /// Where compiled kernels are kept, if anywhere.
    pub kernel_cache: Option<KernelCache>,
    /// Where NVRTC is looked for besides the loader's path.
    pub libraries: Libraries,
    /// Whether a launch may begin while the one before it ends, where the device can do that.
    pub overlap: bool,
    /// Hears what went wrong without stopping the load.
    pub notice: fn(&str),
}

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

/// What can be known before anything is reserved.
struct Prepared {
    opened: Opened,
    layout: Layout,
}

/// A device in use, and the compiler for it.
pub(crate) struct Opened {
    pub gpu: Gpu,
    pub compiler: Compiler,
    /// "cuda:0 (NVIDIA H200, sm_90a, CUDA 13.0", to be closed.
    pub name: String,
    /// What the kernels want to know of it; no sequences, no context.
    pub setting: Setting,
}

/// Takes a device into use.
pub(crate) fn open(
    index: usize,
    libraries: &Libraries,
    cache: Option<&KernelCache>,
    overlap: bool,
) -> Result<Opened, Error> {
    let machine = Machine::find(libraries);
    let (driver, device, nvrtc) = machine.device(index)?;
    let gpu = Gpu::open(device, overlap).map_err(Error::driver("taking the device into use"))?;
    let (arch, (major, minor)) = (device.arch(), device.capability);
    let name = format!("cuda:{} ({}, {arch}, CUDA {}", device.index, device.name, driver.version());
    let setting = Setting {
        slots: 0,
        context: 0,
        kv_f16: false,
        multiprocessors: device.multiprocessors,
        arch: (major * 10 + minor).unsigned_abs(),
        fused: false,
        x_parts: 2,
    };
    Ok(Opened {
        gpu,
        compiler: Compiler { nvrtc: nvrtc.clone(), arch, cache: cache.cloned() },
        name,
        setting,
    })
}

/// Bytes of device memory that a model may take.
pub(crate) fn free_bytes(gpu: &Gpu) -> Result<usize, Error> {
    let (free, _) = gpu.memory().map_err(Error::driver("asking for free memory"))?;
    Ok(free.saturating_sub(SPARE))
}

fn prepare(plan: &Plan, checkpoint: &Checkpoint, options: &CudaOptions) -> Result<Prepared, Error> {
    let CudaOptions { device, libraries, kernel_cache, overlap, activations, .. } = options;
    let x_parts = activations.f16_parts().ok_or(Error::Activations(*activations))?;
    let opened = open(*device, libraries, kernel_cache.as_ref(), *overlap)?;
    let Limits { slots, context, .. } = options.limits;
    let kv_f16 = options.kv == KvType::F16;
    let fused = options.path != PathChoice::Unfused;
    let setting = Setting { slots, context, kv_f16, fused, x_parts, ..opened.setting };
    let layout = Layout::new(plan, checkpoint, options.limits, setting)?;
    let free = free_bytes(&opened.gpu)?;
    if layout.need.total() > free {
        let device = format!("{})", opened.name);
        return Err(Error::NoFit { device, need: layout.need, free, context });
    }
    Ok(Prepared { opened, layout })
}

impl Cuda {
    /// Whether a plan could be loaded, without reserving or compiling anything.
    ///
    /// # Errors
    /// As [`Cuda::load`].
    pub fn check(plan: &Plan, checkpoint: &Checkpoint, options: &CudaOptions) -> Result<(), Error> {
        let Prepared { layout, .. } = prepare(plan, checkpoint, options)?;
        Program::lower(plan, layout.offsets(), options.limits.rows, options.path).map(|_| ())
    }

    /// Reserves memory, compiles kernels, sends the weights. `progress` hears bytes sent and bytes in all.
    ///
    /// # Errors
    /// No device that can be used, an op without a kernel, too little memory, a tensor missing or misshapen, or a device
    /// that fails.
    pub fn load(
        plan: Plan,
        checkpoint: &Arc<Checkpoint>,
        options: &CudaOptions,
        progress: PackProgress<'_>,
    ) -> Result<Cuda, Error> {
        let Prepared { opened, layout } = prepare(&plan, checkpoint, options)?;
        let Opened { gpu, compiler, name, .. } = opened;
        let reserved = Arena::new(&gpu, layout.need.total());
        let arena = reserved.map_err(Error::driver("reserving device memory"))?;
        let at = layout.places(arena.base());
        let program = Program::lower(&plan, &at, options.limits.rows, options.path)?;
        let tools = Tools::new(compiler, (gpu.clone(), Arc::clone(&arena)), options.notice);
        let mut cuda = Cuda::new(tools, program, (&layout, at), plan, options, name)?;
        let zeroed = layout.zeroed().try_for_each(|range| arena.zero(range));
        zeroed.map_err(Error::driver("clearing the caches"))?;
        upload(cuda.plan(), checkpoint, &layout, (&gpu, &arena), progress)?;
        cuda.warm()?;
        Ok(cuda)
    }
}
