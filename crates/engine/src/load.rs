//! From a folder to an executable on a device.

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{
    Activations, Cpu, CpuOptions, Executable, KvType, Limits, PackProgress, Reference, RepackCache,
};
use amoeba_backend_cuda::{Cuda, CudaOptions, KernelCache, Libraries, overlap_from_env};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::simd::Isa;
use amoeba_plan::{PathChoice, Plan};

use crate::{Device, Error};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: Device,
    /// Workers; `None` for one per core.
    pub threads: Option<usize>,
    /// Instruction set; `None` for the widest.
    pub isa: Option<Isa>,
    /// Path through the experts.
    pub path: PathChoice,
    /// Positions to reserve; `None` for what the model was made for, at most [`CONTEXT_DEFAULT`].
    pub context: Option<usize>,
    /// What keys and values are stored as; the reference takes f32 only.
    pub kv: KvType,
    /// What activations are rounded to where they meet quantised weights; the reference takes f32 only.
    pub activations: Activations,
    /// Rows of a prefill chunk.
    pub rows: usize,
    /// Sequences that are kept at a time.
    pub slots: usize,
    /// Where the CPU's packed weights are kept between loads; `None` for nowhere.
    pub repack_cache: Option<RepackCache>,
    /// Where kernels compiled for a GPU are kept between loads; `None` for nowhere.
    pub kernel_cache: Option<KernelCache>,
    /// Hears one sentence when something did not go as asked, and the model runs all the same.
    pub notice: fn(&str),
}

/// Positions reserved unless asked otherwise.
pub const CONTEXT_DEFAULT: usize = 8192;

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: Device::Cpu,
            threads: None,
            isa: None,
            path: PathChoice::Auto,
            context: None,
            kv: KvType::F32,
            activations: Activations::F32,
            rows: 512,
            slots: 1,
            repack_cache: None,
            kernel_cache: None,
            notice: |_| {},
        }
    }
}

impl LoadOptions {
    /// Sizes to reserve for a plan.
    ///
    /// # Errors
    /// A context of zero, or beyond what the model was made for.
    pub fn limits(&self, plan: &Plan) -> Result<Limits, Error> {
        let longest = plan.spec.context_max;
        let context = self.context.unwrap_or(longest.min(CONTEXT_DEFAULT));
        if context == 0 || context > longest {
            return Err(Error::Context { asked: context, longest });
        }
        let slots = self.slots.max(1);
        Ok(Limits { slots, context, rows: self.rows.clamp(1, context.saturating_mul(slots)) })
    }
}

/// Loads a checkpoint onto a device. `progress` is called as `progress(done_bytes, total_bytes)`: bytes
/// packed or, on a GPU, sent.
///
/// # Errors
/// A damaged or unsupported model, or too large a context.
pub fn load_executable(
    checkpoint: &Arc<Checkpoint>,
    options: &LoadOptions,
    progress: PackProgress<'_>,
) -> Result<Box<dyn Executable>, Error> {
    let plan = Plan::of(checkpoint)?;
    let limits = options.limits(&plan)?;
    Ok(match resolve(&plan, checkpoint, options)? {
        Device::Cuda(index) => {
            let cuda = cuda_options(options, limits, index)?;
            Box::new(Cuda::load(plan, checkpoint, &cuda, progress)?)
        }
        Device::Reference if (options.kv, options.activations) != (KvType::F32, Activations::F32) => {
            return Err(Error::ReferenceIsExact);
        }
        Device::Reference => Box::new(Reference::load(plan, Arc::clone(checkpoint), limits)?),
        Device::Cpu | Device::Auto => {
            let cpu = CpuOptions {
                threads: options.threads,
                isa: options.isa,
                path: options.path,
                limits,
                kv: options.kv,
                activations: options.activations,
                repack_cache: options.repack_cache.clone(),
            };
            Box::new(Cpu::load(plan, checkpoint, &cpu, progress)?)
        }
    })
}

/// The device that a model will run on: the one asked for or, where that is left to us, the first GPU if it
/// takes this model as asked for, else the CPU. `notice` is called with the reason why a GPU that is there
/// does not.
///
/// # Errors
/// A context the model was not made for.
pub fn resolve(plan: &Plan, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Device, Error> {
    if options.device != Device::Auto {
        return Ok(options.device);
    }
    let cuda = cuda_options(options, options.limits(plan)?, 0);
    let checked = cuda.and_then(|cuda| Ok(Cuda::check(plan, checkpoint, &cuda)?));
    Ok(match checked {
        Ok(()) => Device::Cuda(0),
        Err(Error::Cuda(amoeba_backend_cuda::Error::Missing(_))) => Device::Cpu,
        Err(error) => {
            (options.notice)(&format!("running on the CPU, not on the GPU: {error}"));
            Device::Cpu
        }
    })
}

fn cuda_options(options: &LoadOptions, limits: Limits, device: usize) -> Result<CudaOptions, Error> {
    Ok(CudaOptions {
        device,
        path: options.path,
        limits,
        kv: options.kv,
        activations: options.activations,
        kernel_cache: options.kernel_cache.clone(),
        libraries: Libraries::from_env(),
        overlap: overlap_from_env(),
        notice: options.notice,
    })
}

/// Opens a model folder.
///
/// # Errors
/// A folder that is not a checkpoint, or a damaged one.
pub fn open(dir: &Path) -> Result<Arc<Checkpoint>, Error> {
    Ok(Arc::new(Checkpoint::open(dir)?))
}
