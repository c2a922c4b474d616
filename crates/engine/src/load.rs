//! From a folder to an executable on a device, in two steps: what can be checked before anything is sent or
//! packed, then the load, which goes on from what the check opened.

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{Activations, Cpu, Device, Executable, KvType, LoadOptions, PackProgress, Reference};
use amoeba_backend_cuda as cuda;
use amoeba_checkpoint::Checkpoint;
use amoeba_plan::Plan;

use crate::Error;

/// A model that was opened, planned and found to suit a device. [`Checked::load`] uses what was opened here:
/// nothing is opened, planned or lowered twice.
pub struct Checked {
    pub(crate) checkpoint: Arc<Checkpoint>,
    plan: Plan,
    /// As asked for, but for the device, which is chosen.
    options: LoadOptions,
    /// The GPU, if it is one.
    gpu: Option<cuda::Ready>,
}

impl Checked {
    /// Opens a model folder and checks it for a device.
    ///
    /// # Errors
    /// As [`open`] and [`Checked::new`].
    pub fn open(dir: &Path, options: &LoadOptions) -> Result<Checked, Error> {
        Checked::new(&open(dir)?, options)
    }

    /// Checks a model for the device asked for. Where the choice is left open, that is the first GPU if it
    /// takes this model as asked for, else the CPU; the notice says why a GPU that is there does not, and
    /// what of the folder is left aside.
    ///
    /// # Errors
    /// An unsupported model, a context it was not made for, or a device that does not take it.
    pub fn new(checkpoint: &Arc<Checkpoint>, options: &LoadOptions) -> Result<Checked, Error> {
        let plan = Plan::of(checkpoint)?;
        checkpoint.notes().iter().for_each(|note| (options.notice)(note));
        plan.notes(checkpoint).iter().for_each(|note| (options.notice)(note));
        options.limits(&plan)?;
        let mut options = options.clone();
        let gpu = match options.device {
            Device::Cuda(_) => Some(cuda::ready(&plan, checkpoint, &options)?),
            Device::Auto => {
                options.device = Device::Cuda(0);
                let gpu = cuda::ready(&plan, checkpoint, &options);
                if let Err(error) = &gpu {
                    options.device = Device::Cpu;
                    if !matches!(error, cuda::Error::Missing(_)) {
                        (options.notice)(&format!("running on the CPU, not on the GPU: {error}"));
                    }
                }
                gpu.ok()
            }
            Device::Reference if (options.kv, options.activations) != (KvType::F32, Activations::F32) => {
                return Err(Error::ReferenceIsExact);
            }
            Device::Reference | Device::Cpu => None,
        };
        Ok(Checked { checkpoint: Arc::clone(checkpoint), plan, options, gpu })
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The options, with the device that was chosen.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// Loads the weights; `progress` is called with bytes packed (on a GPU: sent) and bytes in all.
    ///
    /// # Errors
    /// A tensor missing or misshapen, too little memory, or a device that fails.
    pub fn load(self, progress: PackProgress<'_>) -> Result<Box<dyn Executable>, Error> {
        let Checked { checkpoint, plan, options, gpu } = self;
        if let Some(gpu) = gpu {
            let loaded = gpu.load(plan, &checkpoint, &options, progress);
            return Ok(Box::new(loaded.map_err(cuda::Error::Gpu)?));
        }
        if options.device == Device::Reference {
            let limits = options.limits(&plan)?;
            return Ok(Box::new(Reference::load(plan, checkpoint, limits)?));
        }
        Ok(Box::new(Cpu::load(plan, &checkpoint, &options, progress)?))
    }
}

/// Checks a checkpoint for a device and loads it there. `progress` is called as `progress(done_bytes,
/// total_bytes)`: bytes packed or, on a GPU, sent.
///
/// # Errors
/// As [`Checked::new`] and [`Checked::load`].
pub fn load_executable(
    checkpoint: &Arc<Checkpoint>,
    options: &LoadOptions,
    progress: PackProgress<'_>,
) -> Result<Box<dyn Executable>, Error> {
    Checked::new(checkpoint, options)?.load(progress)
}

/// Opens a model folder.
///
/// # Errors
/// A folder that is not a checkpoint, or a damaged one.
pub fn open(dir: &Path) -> Result<Arc<Checkpoint>, Error> {
    Ok(Arc::new(Checkpoint::open(dir)?))
}
