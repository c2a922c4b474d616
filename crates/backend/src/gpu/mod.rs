//! A model on a GPU, whatever drives it: the program as launches, one piece of device memory, steps, draws,
//! probes and recordings. What differs between drivers is left to [`Driver`].
//!
//! Steps of few rows are one graph, longer ones go through their list of launches. Start reading at
//! [`Ready`], then [`Gpu`].

mod driver;
mod error;
mod layout;
mod load;
mod mailbox;
mod probe;
mod program;
mod sampler;
mod steps;
mod tracer;
mod upload;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use amoeba_kernels::gpu::{Places, Setting};
use amoeba_kernels::sample::Sampling;
use amoeba_plan::{Path, PathChoice, Plan};

use crate::{
    Backend, DeviceKind, Draw, Error as StepError, Flow, KvType, Limits, Probe, Recording, StepRows,
};
use mailbox::Mailbox;
use probe::View;
use program::{Program, Section};
use sampler::Sampler;
use steps::{LaunchContext, Steps};
use tracer::Tracer;

pub use driver::{Driver, Fault, List, Plain, Purpose, Transfer};
pub use error::{Error, Need};
pub use load::{DeviceFacts, Ready};

/// A loaded model. Fields that use the device come before what they use.
pub struct Gpu<D: Driver> {
    /// What steps run.
    steps: Steps<D>,
    /// The same with times; made when recording is asked for.
    tracer: Option<Tracer<D>>,
    /// Op by op, for probes that want to see each as it left its buffers; made when the first comes.
    plain: Option<Steps<D>>,
    sampler: Sampler<D>,
    mailbox: Mailbox<D>,
    on: LaunchContext<D>,
    at: Places,
    plan: Plan,
    limits: Limits,
    path: PathChoice,
    kv: KvType,
    bytes: usize,
    /// Launches so far.
    launches: u32,
    /// When the step began, and how long it took until its logits were there.
    clock: (Instant, Duration),
}

impl<D: Driver> Gpu<D> {
    fn failed(&self, error: Error) -> StepError {
        let (name, facts) = self.on.driver.names();
        let device = format!("{name} ({facts})");
        match error {
            Error::Driver { what, said } => StepError::Device { device, what, said },
            other => StepError::Device { device, what: "preparing a step", said: other.to_string() },
        }
    }

    /// Lowers the program anew.
    fn lower(&self, fused: bool) -> Result<Program, Error> {
        let at = Places { setting: Setting { fused, ..self.at.setting }, ..self.at.clone() };
        let lowered = Program::lower(&self.plan, &at, self.limits.rows, self.path)?;
        Ok(Program { rows_min: self.steps.program.rows_min, ..lowered })
    }

    /// Captures the steps of one row, so that the first token does not pay for it.
    fn warm(&mut self) -> Result<(), Error> {
        self.sampler.warm(&mut self.on)?;
        self.steps.capture(&mut self.on, &mut self.mailbox, 0)
    }

    /// Puts a step on the queue.
    fn put(&mut self, step: &StepRows) -> Result<(), Error> {
        self.on.driver.bind().map_err(Error::driver("a step"))?;
        self.mailbox.write(step).map_err(Error::driver("a step"))?;
        let steps = match &mut self.tracer {
            Some(tracer) if tracer.on => &mut tracer.steps,
            _ => &mut self.steps,
        };
        let launches = steps.run(&mut self.on, &mut self.mailbox, shape(step))?;
        self.launches = self.launches.wrapping_add(launches as u32);
        Ok(())
    }

    /// Runs launch by launch and shows each op to the probe; false if the probe stopped the step.
    fn probed(&mut self, step: &StepRows, probe: &mut dyn Probe) -> Result<bool, Error> {
        let failed = Error::driver("a step");
        if !probe.as_run() && self.at.setting.fused && self.plain.is_none() {
            self.plain = Some(Steps::new(self.lower(false)?, None));
        }
        let Gpu { steps, plain, on, mailbox, plan, .. } = self;
        let steps = plain.as_mut().filter(|_| !probe.as_run()).unwrap_or(steps);
        let (rows, wanted) = shape(step);
        on.driver.bind().map_err(&failed)?;
        mailbox.write(step).map_err(&failed)?;
        mailbox.send(&on.driver, &on.memory, rows).map_err(&failed)?;
        for (launches, segment) in steps.segments(on, (rows, wanted))? {
            let rows = if segment.section == Section::Body { rows } else { wanted };
            let mut gone = 0;
            for (group, of_group) in &segment.groups {
                // One by one: none overlaps with another.
                let mut next = launches[gone..of_group.end].iter();
                next.try_for_each(|launch| on.driver.put([launch])).map_err(&failed)?;
                gone = of_group.end;
                probe.group(group);
                for op in group.ops.clone().filter(|op| rows > 0 && probe.wants(*op)).collect::<Vec<_>>() {
                    let view = View::new(plan, &mailbox.buffers, on, &mut mailbox.row, rows);
                    let flow = probe.see(op, &view);
                    if let Some(error) = view.error() {
                        return Err(failed(error));
                    }
                    if flow == Flow::Stop {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Rows of a step, and those that want logits.
fn shape(step: &StepRows) -> (usize, usize) {
    (step.rows().len(), step.wanted().len())
}

impl<D: Driver> Backend for Gpu<D> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn kind(&self) -> DeviceKind {
        self.on.driver.kind()
    }

    fn describe(&self) -> String {
        let (name, facts) = self.on.driver.names();
        let overlap = if self.on.driver.overlaps() { ", overlapping launches" } else { "" };
        match self.kv {
            KvType::F32 => format!("{name} ({facts}{overlap})"),
            kv => format!("{name} ({facts}{overlap}, {kv} cache)"),
        }
    }

    fn run(&mut self, step: &StepRows, _: Path, probe: Option<&mut dyn Probe>) -> Result<bool, StepError> {
        let began = Instant::now();
        self.sampler.end();
        if let Some(tracer) = &mut self.tracer {
            tracer.forget(probe.is_some());
        }
        let ran = match probe {
            None => self.put(step).map(|()| true),
            Some(probe) => self.probed(step, probe),
        };
        if !ran.map_err(|error| self.failed(error))? {
            return Ok(false);
        }
        let Gpu { mailbox, on, .. } = self;
        let fetched = mailbox.fetch(&on.driver, &on.memory, step.wanted().len());
        fetched.map_err(|error| self.failed(Error::driver("a step")(error)))?;
        self.clock = (began, began.elapsed());
        Ok(true)
    }

    fn checked(&mut self, step: &StepRows) -> Result<(), StepError> {
        let Gpu { tracer, on, clock: (began, there), .. } = self;
        let Some(tracer) = tracer.as_mut().filter(|tracer| tracer.records()) else { return Ok(()) };
        let kept = tracer.keep(&on.driver, shape(step), [*there, began.elapsed()]);
        kept.map_err(|error| self.failed(error))
    }

    fn logits(&self, n: usize) -> &[f32] {
        self.mailbox.logits(n, self.plan.spec.vocab)
    }

    fn memory(&self) -> usize {
        self.bytes
    }

    fn drawer(&mut self) -> Option<&mut dyn Draw> {
        Some(self)
    }

    fn draw_refusal(&self, sampling: &Sampling) -> Option<String> {
        let recording = self.tracer.as_ref().is_some_and(|tracer| tracer.on);
        let recording = recording.then(|| "steps are being recorded".to_owned());
        recording.or_else(|| amoeba_kernels::sample::cuda::refusal(sampling))
    }

    /// Launches are made for sizes of steps: a larger step may cut its sums up in another way.
    fn bit_identical_sizes(&self, rows: usize) -> RangeInclusive<usize> {
        self.steps.program.bit_identical_sizes(rows)
    }

    fn set_rows_min(&mut self, rows: usize) {
        let tracer = self.tracer.as_mut().map(|tracer| &mut tracer.steps);
        for steps in [Some(&mut self.steps), self.plain.as_mut(), tracer].into_iter().flatten() {
            steps.program.rows_min = rows.clamp(1, self.limits.rows);
        }
        self.sampler.forget_chains();
    }

    fn instructions(&self, _rows: usize) -> String {
        self.on.driver.arch().to_owned()
    }

    fn phases(&self) -> Option<u32> {
        Some(self.launches)
    }

    /// There is always room for all launches, however many spans are asked for.
    fn record(&mut self, spans: usize) -> Result<(), StepError> {
        if spans > 0 && self.tracer.is_none() {
            let program = self.lower(self.at.setting.fused).map_err(|error| self.failed(error))?;
            let tracer = Tracer::new(&mut self.on, program).map_err(|error| self.failed(error))?;
            self.tracer = Some(tracer);
        }
        self.tracer.iter_mut().for_each(|tracer| tracer.on = spans > 0);
        Ok(())
    }

    fn recorded(&mut self) -> Result<Recording, StepError> {
        let tracer = self.tracer.as_ref().filter(|tracer| tracer.on);
        tracer.and_then(|tracer| tracer.recording(&self.plan)).ok_or(StepError::NotRecorded)
    }
}
