//! A plan on a backend: what every backend needs done alike is done once, here. Rows are checked, sequences
//! kept, logits judged and draws counted by [`Loaded`]; a [`Backend`] only runs.

use std::ops::RangeInclusive;

use amoeba_kernels::sample::Sampling;
use amoeba_plan::{Path, Plan};

use crate::{DeviceKind, DeviceSampler, Drawn, Error, Executable, Limits, Probe, Recording, Row, StepRows};

/// Runs steps that were checked. What the methods mean is said at those of [`Executable`] by the same names.
#[allow(missing_docs, reason = "documented at `Executable`")]
pub trait Backend: Send {
    fn plan(&self) -> &Plan;
    fn kind(&self) -> DeviceKind;
    fn describe(&self) -> String;
    fn logits(&self, n: usize) -> &[f32];
    fn memory(&self) -> usize;

    /// Runs the program for the rows of `step`, on that path through the experts; false if the probe stopped
    /// it. Logits are there, but not checked, when this returns.
    ///
    /// # Errors
    /// The device failed.
    fn run(&mut self, step: &StepRows, path: Path, probe: Option<&mut dyn Probe>) -> Result<bool, Error>;

    /// The logits of a step that ran to its end were checked.
    ///
    /// # Errors
    /// The device failed.
    fn checked(&mut self, _step: &StepRows) -> Result<(), Error> {
        Ok(())
    }

    /// Draws tokens on the device, if it can.
    fn drawer(&mut self) -> Option<&mut dyn Draw> {
        None
    }

    /// Why tokens cannot be drawn like that; `None` if they can.
    fn draw_refusal(&self, _sampling: &Sampling) -> Option<String> {
        None
    }

    fn bit_identical_sizes(&self, _rows: usize) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn set_rows_min(&mut self, _rows: usize) {}

    fn instructions(&self, _rows: usize) -> String {
        "scalar".to_owned()
    }

    fn weights(&self) -> Vec<&[u8]> {
        Vec::new()
    }

    fn phases(&self) -> Option<u32> {
        None
    }

    fn record(&mut self, _spans: usize) -> Result<(), Error> {
        Err(Error::CannotRecord(self.describe()))
    }

    fn recorded(&mut self) -> Result<Recording, Error> {
        Err(Error::NotRecorded)
    }
}

/// A device's part of [`DeviceSampler`]; errors are failures of the device.
#[allow(missing_docs, reason = "documented at `DeviceSampler`")]
pub trait Draw {
    fn begin(&mut self, slot: usize, sampling: &Sampling, recent: &[u32]) -> Result<(), Error>;

    /// Enqueues a step and a draw for each of its rows that wants logits.
    fn enqueue(&mut self, step: &StepRows) -> Result<(), Error>;

    /// Enqueues the step that the one before writes, whose rows are these but for their tokens, and draws.
    fn enqueue_next(&mut self, step: &StepRows) -> Result<(), Error>;

    /// Waits for the first step that was not taken and appends what it drew for `rows` rows.
    fn take(&mut self, rows: usize, drawn: &mut Vec<Drawn>) -> Result<(), Error>;
}

/// A plan with weights loaded on a backend.
pub struct Loaded<B> {
    pub(crate) backend: B,
    step: StepRows,
    /// Steps that draw and are not taken.
    in_flight: usize,
    /// Whether the last step draws, so that another may follow it.
    drawing: bool,
    drawn: Vec<Drawn>,
}

impl<B: Backend> Loaded<B> {
    /// With nothing run yet.
    pub(crate) fn new(backend: B, step: StepRows) -> Loaded<B> {
        let drawn = Vec::with_capacity(step.limits().slots);
        Loaded { backend, step, in_flight: 0, drawing: false, drawn }
    }

    /// Tokens that were not taken are lost.
    fn end_draws(&mut self) {
        (self.in_flight, self.drawing) = (0, false);
    }
}

impl<B: Backend> Executable for Loaded<B> {
    fn plan(&self) -> &Plan {
        self.backend.plan()
    }

    fn limits(&self) -> Limits {
        self.step.limits()
    }

    fn kind(&self) -> DeviceKind {
        self.backend.kind()
    }

    fn describe(&self) -> String {
        self.backend.describe()
    }

    fn path(&self, rows: usize) -> Path {
        self.step.path(rows)
    }

    fn bit_identical_sizes(&self, rows: usize) -> RangeInclusive<usize> {
        self.backend.bit_identical_sizes(rows)
    }

    fn set_rows_min(&mut self, rows: usize) {
        self.backend.set_rows_min(rows);
    }

    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), Error> {
        self.step.begin(rows)?;
        self.end_draws();
        if !self.backend.run(&self.step, self.step.path(rows.len()), probe)? {
            return Ok(());
        }
        self.step.finish(|n| self.backend.logits(n))?;
        self.backend.checked(&self.step)
    }

    fn logits(&self, n: usize) -> &[f32] {
        self.backend.logits(n)
    }

    fn sampler(&mut self) -> Option<&mut dyn DeviceSampler> {
        self.backend.drawer()?;
        Some(self)
    }

    fn instructions(&self, rows: usize) -> String {
        self.backend.instructions(rows)
    }

    fn memory(&self) -> usize {
        self.backend.memory()
    }

    fn weights(&self) -> Vec<&[u8]> {
        self.backend.weights()
    }

    fn phases(&self) -> Option<u32> {
        self.backend.phases()
    }

    fn record(&mut self, spans: usize) -> Result<(), Error> {
        self.backend.record(spans)
    }

    fn recorded(&mut self) -> Result<Recording, Error> {
        self.backend.recorded()
    }
}

fn drawer<B: Backend>(backend: &mut B) -> &mut dyn Draw {
    backend.drawer().expect("a sampler is handed out only if the backend draws")
}

impl<B: Backend> DeviceSampler for Loaded<B> {
    fn rows_max(&self) -> usize {
        self.step.draws_max()
    }

    fn refusal(&self, sampling: &Sampling) -> Option<String> {
        self.backend.draw_refusal(sampling)
    }

    fn begin(&mut self, slot: usize, sampling: &Sampling, recent: &[u32]) -> Result<(), Error> {
        assert!(self.refusal(sampling).is_none(), "a draw that was refused");
        drawer(&mut self.backend).begin(slot, sampling, recent)
    }

    fn enqueue(&mut self, rows: &[Row]) -> Result<(), Error> {
        self.step.begin(rows)?;
        self.end_draws();
        let wanted = self.step.wanted().len();
        assert!(0 < wanted && wanted <= self.step.draws_max(), "{wanted} rows to draw for");
        drawer(&mut self.backend).enqueue(&self.step)?;
        (self.in_flight, self.drawing) = (1, true);
        Ok(())
    }

    fn enqueue_next(&mut self) -> Result<(), Error> {
        assert!(self.drawing, "nothing was enqueued");
        self.step.advance()?;
        drawer(&mut self.backend).enqueue_next(&self.step)?;
        self.in_flight += 1;
        Ok(())
    }

    fn take(&mut self) -> Result<&[Drawn], Error> {
        assert!(self.in_flight > 0, "every step was taken");
        self.in_flight -= 1;
        self.drawn.clear();
        drawer(&mut self.backend).take(self.step.wanted().len(), &mut self.drawn)?;
        self.step.finish_drawn(&self.drawn);
        Ok(&self.drawn)
    }
}
