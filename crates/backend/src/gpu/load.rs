//! From a plan to a model on a GPU, in two steps: what can be checked before anything is sent, then the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::gpu::{Places, Setting};
use amoeba_plan::{FEW_ROWS_MAX, PathChoice, Plan};

use super::driver::Driver;
use super::layout::Layout;
use super::mailbox::Mailbox;
use super::program::Program;
use super::sampler::Sampler;
use super::steps::{LaunchContext, Steps};
use super::upload::upload;
use super::{Error, Gpu};
use crate::{KvType, Limits, LoadOptions, Loaded, PackProgress, StepRows};

/// What lowering wants to know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Streaming multiprocessors: launches are sized to fill them.
    pub multiprocessors: u32,
    /// Compute capability, 90 for 9.0.
    pub arch: u32,
}

/// A device with memory reserved for a model, and the model's program lowered for it: all that can be checked
/// before kernels are compiled and weights sent.
pub struct Ready<D: Driver> {
    on: LaunchContext<D>,
    limits: Limits,
    layout: Layout,
    at: Places,
    program: Program,
}

impl<D: Driver> Ready<D> {
    /// Takes a device into use for a plan; `open` is called once the options are known to suit a GPU.
    ///
    /// # Errors
    /// No device that can be used, an op without a kernel, too little memory, a tensor missing or misshapen,
    /// or options that the model or a GPU does not take.
    pub fn new<E: From<Error>>(
        plan: &Plan,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        open: impl FnOnce() -> Result<(D, DeviceFacts), E>,
    ) -> Result<Ready<D>, E> {
        let limits = options.limits(plan).map_err(Error::Options)?;
        let x_terms = options.activations.f16_terms().ok_or(Error::Activations(options.activations))?;
        let (driver, DeviceFacts { multiprocessors, arch }) = open()?;
        let Limits { slots, context, rows } = limits;
        let kv_f16 = options.kv == KvType::F16;
        let fused = options.path != PathChoice::Unfused;
        let setting = Setting { slots, context, kv_f16, multiprocessors, arch, fused, x_terms };
        let layout = Layout::new(plan, checkpoint, limits, setting).map_err(Error::Checkpoint)?;
        let free = driver.free_bytes().map_err(Error::driver("asking for free memory"))?;
        if layout.need.total() > free {
            let (name, facts) = driver.names();
            let device = format!("{name} ({facts})");
            return Err(Error::NoFit { device, need: layout.need, free, context }.into());
        }
        let reserved = driver.reserve(layout.need.total());
        let memory = reserved.map_err(Error::driver("reserving device memory"))?;
        let at = layout.places(D::address(&memory));
        let program = Program::lower(plan, &at, rows, options.path)?;
        Ok(Ready { on: LaunchContext { memory, driver }, limits, layout, at, program })
    }

    /// Compiles kernels and sends the weights of the plan that the device was made ready for, with the same
    /// options. `progress` is called as `progress(done_bytes, total_bytes)`.
    ///
    /// # Errors
    /// A kernel that does not compile, a tensor missing or misshapen, or a device that fails.
    pub fn load(
        self,
        plan: Plan,
        checkpoint: &Arc<Checkpoint>,
        options: &LoadOptions,
        progress: PackProgress<'_>,
    ) -> Result<Loaded<Gpu<D>>, Error> {
        let Ready { mut on, limits, layout, at, program } = self;
        let mailbox = Mailbox::new(&on.driver, &plan, &layout, limits);
        let mailbox = mailbox.map_err(Error::driver("reserving host memory"))?;
        let mut steps = Steps::new(program, None);
        steps.make_all(&mut on)?;
        let sampler = Sampler::new(&on, (&layout, &at), &plan, limits)?;
        let step = StepRows::new(&plan, limits, options.path, FEW_ROWS_MAX);
        let mut zeroed = layout.zeroed();
        let zeroed = zeroed.try_for_each(|range| on.driver.zero(&on.memory, range));
        zeroed.and_then(|()| on.driver.wait()).map_err(Error::driver("clearing the caches"))?;
        upload(&plan, checkpoint, &layout, &on, progress)?;
        let mut gpu = Gpu {
            steps,
            tracer: None,
            plain: None,
            sampler,
            mailbox,
            on,
            at,
            plan,
            limits,
            path: options.path,
            kv: options.kv,
            bytes: layout.need.total(),
            launches: 0,
            clock: (Instant::now(), Duration::ZERO),
        };
        gpu.warm()?;
        Ok(Loaded::new(gpu, step))
    }
}
