//! A model on a CUDA device: steps of up to eight rows are one graph, longer ones go through their list of launches.

use std::ops::RangeInclusive;
use std::time::Instant;

use amoeba_backend::{
    Draws, Error as StepError, Executable, Flow, KvType, Limits, LoadOptions, Probe, Recording, Row, StepRows,
};
use amoeba_kernels::cuda::{Place, Places, STEP_HEAD_BYTES, Setting, StepRow};
use amoeba_plan::{Path, PathChoice, Plan};
use cudarc::driver::DriverError;

use crate::Error;
use crate::arena::Layout;
use crate::probe::View;
use crate::program::{DECODE_ROWS_MAX, Part, Program};
use crate::sampling::Drawing;
use crate::steps::{Steps, Tools};
use crate::sys::{Arena, Gpu, Pinned};
use crate::tracer::Tracer;

/// u32 words of the step before its rows, and of each row.
const HEAD_WORDS: usize = STEP_HEAD_BYTES / 4;
const ROW_WORDS: usize = size_of::<StepRow>() / 4;

/// A loaded model. Fields that use the device come before what they use.
pub struct Cuda {
    /// What steps run.
    pub(crate) steps: Steps,
    /// The same with times; made when recording is asked for.
    pub(crate) tracer: Option<Tracer>,
    /// Op by op, for probes that want to see each as it left its buffers; made when the first comes.
    plain: Option<Steps>,
    pub(crate) drawing: Drawing,
    pub(crate) mailbox: Mailbox,
    pub(crate) tools: Tools,
    at: Places,
    pub(crate) plan: Plan,
    pub(crate) limits: Limits,
    path: PathChoice,
    kv: KvType,
    pub(crate) rows: StepRows,
    /// Launches so far.
    pub(crate) launches: u32,
    /// "cuda:0 (NVIDIA H200, sm_90a, CUDA 13.0".
    device: String,
}

/// What goes to the device and comes back.
pub struct Mailbox {
    /// The step as kernels read it.
    pub step: Pinned<u32>,
    /// Its offset in the arena.
    pub step_at: usize,
    /// Logits of those rows.
    logits: Pinned<f32>,
    /// Where they come from.
    logits_at: Place,
    /// One row of the widest buffer, for probes.
    row: Pinned<f32>,
    /// Offsets of all buffers.
    buffers: Vec<Place>,
}

impl Mailbox {
    fn new(gpu: &Gpu, plan: &Plan, layout: &Layout, limits: Limits) -> Result<Mailbox, DriverError> {
        let at = layout.offsets();
        let widest = at.buffers.iter().map(|buffer| buffer.stride).max().unwrap_or(1);
        let logits_at = at.buffers[plan.logits.0];
        Ok(Mailbox {
            step: Pinned::zeroed(gpu, HEAD_WORDS + limits.rows * ROW_WORDS)?,
            step_at: at.step as usize,
            logits: Pinned::zeroed(gpu, limits.rows * logits_at.stride)?,
            logits_at,
            row: Pinned::zeroed(gpu, widest)?,
            buffers: at.buffers.clone(),
        })
    }

    /// Writes down a step.
    fn write(&mut self, step: &StepRows) -> Result<(), DriverError> {
        let (rows, wanted) = (step.rows(), step.wanted());
        let step = self.step.fill()?;
        step[..HEAD_WORDS].copy_from_slice(&[rows.len() as u32, wanted.len() as u32, 0, 0]);
        let entries = step[HEAD_WORDS..].chunks_exact_mut(ROW_WORDS);
        for (i, (row, entry)) in rows.iter().zip(entries).enumerate() {
            let source = wanted.get(i).map_or(0, |source| *source as u32);
            entry.copy_from_slice(&[row.token, row.slot as u32, row.position as u32, source]);
        }
        Ok(())
    }

    /// Words of a step.
    pub fn words(rows: usize) -> usize {
        HEAD_WORDS + rows * ROW_WORDS
    }

    /// Sends a step of so many rows.
    pub fn send(&mut self, arena: &Arena, rows: usize) -> Result<(), DriverError> {
        self.step.send(Mailbox::words(rows), arena, self.step_at)
    }

    /// Logits of the n-th row that wanted them.
    fn logits(&self, n: usize, vocab: usize) -> &[f32] {
        &self.logits.get()[n * self.logits_at.stride..][..vocab]
    }

    /// Brings the logits of so many rows and waits for them.
    fn fetch(&mut self, arena: &Arena, rows: usize) -> Result<(), DriverError> {
        let Place { address, stride } = self.logits_at;
        match rows {
            0 => Ok(()),
            rows => self.logits.fetch(rows * stride, arena, address as usize),
        }
    }
}

impl Cuda {
    /// Everything but the weights is in place.
    pub(crate) fn new(
        mut tools: Tools,
        program: Program,
        (layout, at): (&Layout, Places),
        plan: Plan,
        (limits, options): (Limits, &LoadOptions),
        device: String,
    ) -> Result<Cuda, Error> {
        let mailbox = Mailbox::new(&tools.gpu, &plan, layout, limits);
        let mut steps = Steps::new(program, None);
        steps.make_all(&mut tools)?;
        Ok(Cuda {
            drawing: Drawing::new(&mut tools, (layout, &at), &plan)?,
            steps,
            tracer: None,
            plain: None,
            mailbox: mailbox.map_err(Error::driver("reserving host memory"))?,
            tools,
            at,
            rows: StepRows::new(&plan, limits, options.path, DECODE_ROWS_MAX),
            plan,
            limits,
            path: options.path,
            kv: options.kv,
            launches: 0,
            device,
        })
    }

    /// Captures the steps of one row, so that the first token does not pay for it.
    pub(crate) fn warm(&mut self) -> Result<(), Error> {
        self.steps.capture(&mut self.tools, &mut self.mailbox, 0)
    }

    pub(crate) fn failed(&self, error: Error) -> StepError {
        let device = format!("{})", self.device);
        match error {
            Error::Driver { what, said } => StepError::Device { device, what, said },
            other => StepError::Device { device, what: "preparing a step", said: other.to_string() },
        }
    }

    /// Lowers the program anew.
    fn lower(&self, fused: bool) -> Result<Program, Error> {
        let at = Places { setting: Setting { fused, ..self.at.setting }, ..self.at.clone() };
        Program::lower(&self.plan, &at, self.limits.rows, self.path)
    }

    /// Puts a step on the stream.
    fn run(&mut self) -> Result<(), Error> {
        self.tools.gpu.bind().map_err(Error::driver("a step"))?;
        self.mailbox.write(&self.rows).map_err(Error::driver("a step"))?;
        let steps = match &mut self.tracer {
            Some(tracer) if tracer.on => &mut tracer.steps,
            _ => &mut self.steps,
        };
        let shape = (self.rows.rows().len(), self.rows.wanted().len());
        let launches = steps.run(&mut self.tools, &mut self.mailbox, shape)?;
        self.launches = self.launches.wrapping_add(launches as u32);
        Ok(())
    }

    /// Runs launch by launch and shows each op to the probe; false if the probe stopped the step.
    fn probed(&mut self, probe: &mut dyn Probe) -> Result<bool, Error> {
        let failed = Error::driver("a step");
        if !probe.as_run() && self.at.setting.fused && self.plain.is_none() {
            self.plain = Some(Steps::new(self.lower(false)?, None));
        }
        let Cuda { steps, plain, tools, mailbox, plan, rows: step, .. } = self;
        let steps = plain.as_mut().filter(|_| !probe.as_run()).unwrap_or(steps);
        tools.gpu.bind().map_err(&failed)?;
        mailbox.write(step).map_err(&failed)?;
        let (rows, wanted) = (step.rows().len(), step.wanted().len());
        mailbox.send(&tools.arena, rows).map_err(&failed)?;
        for (launches, stretch) in steps.stretches(tools, (rows, wanted))? {
            let rows = if stretch.part == Part::Body { rows } else { wanted };
            for (ops, of_ops) in &stretch.ops {
                launches[of_ops.clone()].iter().try_for_each(|one| one.go(&tools.gpu)).map_err(&failed)?;
                probe.together(ops.clone());
                for op in ops.clone().filter(|op| rows > 0 && probe.wants(*op)).collect::<Vec<_>>() {
                    let view = View::new(plan, &mailbox.buffers, &tools.arena, &mut mailbox.row, rows);
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

impl Executable for Cuda {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn describe(&self) -> String {
        let overlap = if self.tools.gpu.overlap { ", overlapping launches" } else { "" };
        match self.kv {
            KvType::F32 => format!("{}{overlap})", self.device),
            kv => format!("{}{overlap}, {kv} cache)", self.device),
        }
    }

    fn path(&self, rows: usize) -> Path {
        self.rows.path(rows)
    }

    /// Launches are made for sizes of steps: a larger step may cut its sums up in another way.
    fn alike(&self, rows: usize) -> RangeInclusive<usize> {
        self.steps.program.alike(rows)
    }

    fn instructions(&self, _rows: usize) -> String {
        self.tools.gpu.info.arch()
    }

    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), StepError> {
        self.rows.begin(rows)?;
        let (began, probed) = (Instant::now(), probe.is_some());
        self.drawing.end();
        self.tracer.iter_mut().for_each(Tracer::forget);
        let ran = match probe {
            None => self.run().map(|()| true),
            Some(probe) => self.probed(probe),
        };
        if !ran.map_err(|error| self.failed(error))? {
            return Ok(());
        }
        let wanted = self.rows.wanted().len();
        let fetched = self.mailbox.fetch(&self.tools.arena, wanted);
        fetched.map_err(|error| self.failed(Error::driver("a step")(error)))?;
        let there = began.elapsed();
        let Cuda { rows: step, mailbox, plan, .. } = self;
        step.finish(|n| mailbox.logits(n, plan.spec.vocab))?;
        if let Some(tracer) = self.tracer.as_mut().filter(|tracer| tracer.on && !probed) {
            let shape = (rows.len(), wanted);
            let kept = tracer.keep(shape, [there, began.elapsed()]);
            kept.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn logits(&self, n: usize) -> &[f32] {
        self.mailbox.logits(n, self.plan.spec.vocab)
    }

    fn memory(&self) -> usize {
        self.tools.arena.bytes()
    }

    fn draws(&mut self) -> Option<&mut dyn Draws> {
        Some(self)
    }

    fn phases(&self) -> Option<u32> {
        Some(self.launches)
    }

    /// There is always room for all launches, however many spans are asked for.
    fn record(&mut self, spans: usize) -> Result<(), StepError> {
        if spans > 0 && self.tracer.is_none() {
            let program = self.lower(self.at.setting.fused).map_err(|error| self.failed(error))?;
            let tracer = Tracer::new(&mut self.tools, program).map_err(|error| self.failed(error))?;
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
