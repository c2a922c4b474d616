//! From a folder to an executable on a device.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{
    Activations, Cpu, CpuOptions, Executable, KvType, Limits, PackProgress, Reference, RepackCache,
};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::simd::Isa;
use amoeba_plan::{PathChoice, Plan};

use crate::Error;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// Vectorised CPU kernels.
    #[default]
    Cpu,
    /// The scalar f64 interpreter: slow, for checking.
    Reference,
}

impl Device {
    /// All devices of this build by name.
    pub const NAMES: [(&'static str, Device); 2] = [("cpu", Device::Cpu), ("reference", Device::Reference)];
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Reference => "reference",
        })
    }
}

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

/// Loads a checkpoint onto a device. `progress` hears bytes packed and bytes in all.
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
    Ok(match options.device {
        Device::Reference if (options.kv, options.activations) != (KvType::F32, Activations::F32) => {
            return Err(Error::ReferenceIsExact);
        }
        Device::Reference => Box::new(Reference::load(plan, Arc::clone(checkpoint), limits)?),
        Device::Cpu => {
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

/// Opens a model folder.
///
/// # Errors
/// A folder that is no checkpoint, or a damaged one.
pub fn open(dir: &Path) -> Result<Arc<Checkpoint>, Error> {
    Ok(Arc::new(Checkpoint::open(dir)?))
}
