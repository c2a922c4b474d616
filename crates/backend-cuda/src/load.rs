//! From a plan to a model on a device.

use std::sync::Arc;

use amoeba_backend::{Device, Executable, KernelCache, KvType, Limits, LoadOptions, PackProgress};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::cuda::{Places, Setting};
use amoeba_plan::{PathChoice, Plan};

use crate::arena::Layout;
use crate::cache::Kept;
use crate::compile::Compiler;
use crate::program::Program;
use crate::steps::Tools;
use crate::sys::{Arena, Gpu};
use crate::upload::upload;
use crate::{Cuda, DeviceInfo, Driver, Error, Libraries, Missing, Nvrtc};

/// Device memory left alone: loaded code, the driver's own, and what else is on the device needs some.
const SPARE: usize = 256 << 20;

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
        compiler: Compiler { nvrtc: nvrtc.clone(), arch, cache: cache.cloned().map(Kept) },
        name,
        setting,
    })
}

/// Bytes of device memory that a model may take.
pub(crate) fn free_bytes(gpu: &Gpu) -> Result<usize, Error> {
    let (free, _) = gpu.memory().map_err(Error::driver("asking for free memory"))?;
    Ok(free.saturating_sub(SPARE))
}

/// A device with memory reserved for a model, and the model's program lowered for it: all that can be checked before kernels
/// are compiled and weights sent.
pub struct Ready {
    opened: Opened,
    limits: Limits,
    layout: Layout,
    arena: Arc<Arena>,
    at: Places,
    program: Program,
}

impl Ready {
    /// Takes a device into use for a plan.
    ///
    /// # Errors
    /// No device that can be used, an op without a kernel, too little memory, a tensor missing or misshapen, or sizes that the
    /// model does not take.
    pub fn new(plan: &Plan, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Ready, Error> {
        let limits = options.limits(plan).map_err(Error::Options)?;
        let x_parts = options.activations.f16_parts().ok_or(Error::Activations(options.activations))?;
        let index = if let Device::Cuda(index) = options.device { index } else { 0 };
        let libraries = options.libraries.clone().map_or_else(Libraries::from_env, Libraries::in_folders);
        let overlap = options.overlap.unwrap_or_else(overlap_from_env);
        let opened = open(index, &libraries, options.kernel_cache.as_ref(), overlap)?;
        let Limits { slots, context, rows } = limits;
        let kv_f16 = options.kv == KvType::F16;
        let fused = options.path != PathChoice::Unfused;
        let setting = Setting { slots, context, kv_f16, fused, x_parts, ..opened.setting };
        let layout = Layout::new(plan, checkpoint, limits, setting)?;
        let free = free_bytes(&opened.gpu)?;
        if layout.need.total() > free {
            let device = format!("{})", opened.name);
            return Err(Error::NoFit { device, need: layout.need, free, context });
        }
        let reserved = Arena::new(&opened.gpu, layout.need.total());
        let arena = reserved.map_err(Error::driver("reserving device memory"))?;
        let at = layout.places(arena.base());
        let program = Program::lower(plan, &at, rows, options.path)?;
        Ok(Ready { opened, limits, layout, arena, at, program })
    }
}

impl Cuda {
    /// Compiles kernels and sends the weights of the plan that the device was made ready for, with the same options.
    /// `progress` is called with bytes sent and bytes in all.
    ///
    /// # Errors
    /// A kernel that does not compile, a tensor missing or misshapen, or a device that fails.
    pub fn load(
        ready: Ready,
        plan: Plan,
        checkpoint: &Arc<Checkpoint>,
        options: &LoadOptions,
        progress: PackProgress<'_>,
    ) -> Result<Cuda, Error> {
        let Ready { opened, limits, layout, arena, at, program } = ready;
        let Opened { gpu, compiler, name, .. } = opened;
        let tools = Tools::new(compiler, (gpu.clone(), Arc::clone(&arena)), options.notice);
        let mut cuda = Cuda::new(tools, program, (&layout, at), plan, (limits, options), name)?;
        let zeroed = layout.zeroed().try_for_each(|range| arena.zero(range));
        zeroed.map_err(Error::driver("clearing the caches"))?;
        upload(cuda.plan(), checkpoint, &layout, (&gpu, &arena), progress)?;
        cuda.warm()?;
        Ok(cuda)
    }
}
