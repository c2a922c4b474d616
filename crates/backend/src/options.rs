//! How to load a model: one set of options for every backend, each of which reads what concerns it.

use std::path::PathBuf;

use amoeba_kernels::simd::Isa;
use amoeba_plan::{PathChoice, Plan};

use crate::{Activations, Device, Error, KvType, Limits, RepackCache};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: Device,
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
    /// CPU: workers; `None` for one per core.
    pub threads: Option<usize>,
    /// CPU: instruction set; `None` for the widest.
    pub isa: Option<Isa>,
    /// CPU: where packed weights are kept between loads; `None` for nowhere.
    pub repack_cache: Option<RepackCache>,
    /// GPU: where compiled kernels are kept between loads; `None` for nowhere.
    pub kernel_cache: Option<KernelCache>,
    /// GPU: folders to look for the kernels' compiler in, besides the loader's path; `None` for those that
    /// the environment names.
    pub libraries: Option<Vec<PathBuf>>,
    /// GPU: whether a launch may begin while the one before it ends, where the device can do that; `None` for
    /// what the environment says.
    pub overlap: Option<bool>,
    /// Called with one sentence when something did not go as asked, and the model runs all the same.
    pub notice: fn(&str),
}

/// A folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct KernelCache {
    /// The folder; made when needed.
    pub dir: PathBuf,
    /// Most bytes it may hold: what was not used for longest goes first.
    pub bytes_max: u64,
}

/// Positions reserved unless asked otherwise.
pub const CONTEXT_DEFAULT: usize = 8192;

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: Device::Cpu,
            path: PathChoice::Auto,
            context: None,
            kv: KvType::F32,
            activations: Activations::F32,
            rows: 512,
            slots: 1,
            threads: None,
            isa: None,
            repack_cache: None,
            kernel_cache: None,
            libraries: None,
            overlap: None,
            notice: |_| {},
        }
    }
}

impl LoadOptions {
    /// The defaults, with sizes as in `limits`.
    pub fn sized(limits: Limits) -> LoadOptions {
        let Limits { slots, context, rows } = limits;
        LoadOptions { slots, context: Some(context), rows, ..LoadOptions::default() }
    }

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
