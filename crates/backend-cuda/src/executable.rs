//! A model on a CUDA device: steps of up to eight rows are one graph, longer ones go through their list of launches.

use std::ops::RangeInclusive;
use std::time::Instant;

use amoeba_backend::{
    DeviceKind, DeviceSampler, Error as StepError, Executable, Flow, KvType, Limits, Probe, Recording, Row,
    Sequences, check_rows,
};
use amoeba_kernels::cuda::{Place, Places, STEP_HEAD_BYTES, Setting, StepRow};
use amoeba_plan::{FEW_ROWS_MAX, Op, Path, PathChoice, Plan, select_path};
use cudarc::driver::DriverError;

use crate::arena::Layout;
use crate::probe::View;
use crate::program::{Part, Program};
use crate::sampling::Drawing;
use crate::steps::{Steps, Tools};
use crate::sys::{Arena, Gpu, Pinned};
use crate::tracer::Tracer;
use crate::{CudaOptions, Error};

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
    has_experts: bool,
    pub(crate) sequences: Sequences,
    /// Launches so far.
    pub(crate) launches: u32,
    /// "cuda:0 (NVIDIA H200, sm_90a, CUDA 13.0".
    device: String,
    /// Its number.
    index: usize,
}

/// What goes to the device and comes back.
pub struct Mailbox {
    /// The step as kernels read it.
    pub step: Pinned<u32>,
    /// Its offset in the arena.
    pub step_at: usize,
    /// Rows of the step that want logits.
    pub wanted: Vec<usize>,
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
            wanted: Vec::with_capacity(limits.rows),
            logits: Pinned::zeroed(gpu, limits.rows * logits_at.stride)?,
            logits_at,
            row: Pinned::zeroed(gpu, widest)?,
            buffers: at.buffers.clone(),
        })
    }

    /// Writes down a step.
    fn write(&mut self, rows: &[Row]) -> Result<(), DriverError> {
        self.wanted.clear();
        self.wanted.extend(rows.iter().enumerate().filter(|(_, row)| row.logits).map(|(i, _)| i));
        let step = self.step.fill()?;
        step[..HEAD_WORDS].copy_from_slice(&[rows.len() as u32, self.wanted.len() as u32, 0, 0]);
        let entries = step[HEAD_WORDS..].chunks_exact_mut(ROW_WORDS);
        for (i, (row, entry)) in rows.iter().zip(entries).enumerate() {
            let source = self.wanted.get(i).map_or(0, |source| *source as u32);
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

    /// Logits that [`Mailbox::fetch`] brought, of the n-th row that asked for them.
    fn logits(&self, n: usize, vocab: usize) -> &[f32] {
        &self.logits.get()[n * self.logits_at.stride..][..vocab]
    }

    /// Brings the logits and waits for them.
    fn fetch(&mut self, arena: &Arena) -> Result<(), DriverError> {
        let Place { address, stride } = self.logits_at;
        match self.wanted.len() {
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
        options: &CudaOptions,
        device: String,
    ) -> Result<Cuda, Error> {
        let limits = options.limits;
        let mailbox = Mailbox::new(&tools.gpu, &plan, layout, limits);
        let mut steps = Steps::new(program, None);
        steps.make_all(&mut tools)?;
        Ok(Cuda {
            drawing: Drawing::new(&tools, (layout, &at), &plan, limits)?,
            steps,
            tracer: None,
            plain: None,
            mailbox: mailbox.map_err(Error::driver("reserving host memory"))?,
            tools,
            at,
            has_experts: plan.program.iter().any(|step| matches!(step.op, Op::Experts(_))),
            sequences: Sequences::new(&plan, limits),
            plan,
            limits,
            path: options.path,
            kv: options.kv,
            launches: 0,
            device,
            index: options.device,
        })
    }

    /// Captures the steps of one row, so that the first token does not pay for it.
    pub(crate) fn warm(&mut self) -> Result<(), Error> {
        self.drawing.warm(&mut self.tools)?;
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
        let lowered = Program::lower(&self.plan, &at, self.limits.rows, self.path)?;
        Ok(Program { rows_min: self.steps.program.rows_min, ..lowered })
    }

    /// Puts a step on the stream.
    pub(crate) fn run(&mut self, rows: &[Row]) -> Result<(), Error> {
        self.tools.gpu.bind().map_err(Error::driver("a step"))?;
        self.mailbox.write(rows).map_err(Error::driver("a step"))?;
        let steps = match &mut self.tracer {
            Some(tracer) if tracer.on => &mut tracer.steps,
            _ => &mut self.steps,
        };
        let launches = steps.run(&mut self.tools, &mut self.mailbox, rows.len())?;
        self.launches = self.launches.wrapping_add(launches as u32);
        Ok(())
    }

    /// Runs launch by launch and shows each op to the probe; false if the probe stopped the step.
    fn probed(&mut self, rows: &[Row], probe: &mut dyn Probe) -> Result<bool, Error> {
        let failed = Error::driver("a step");
        if !probe.as_run() && self.at.setting.fused && self.plain.is_none() {
            self.plain = Some(Steps::new(self.lower(false)?, None));
        }
        let Cuda { steps, plain, tools, mailbox, plan, .. } = self;
        let steps = plain.as_mut().filter(|_| !probe.as_run()).unwrap_or(steps);
        tools.gpu.bind().map_err(&failed)?;
        mailbox.write(rows).map_err(&failed)?;
        mailbox.send(&tools.arena, rows.len()).map_err(&failed)?;
        let wanted = mailbox.wanted.len();
        for (launches, stretch) in steps.stretches(tools, (rows.len(), wanted))? {
            let rows = if stretch.part == Part::Body { rows.len() } else { wanted };
            let mut gone = 0;
            for (group, of_group) in &stretch.groups {
                let next = &launches[gone..of_group.end];
                next.iter().try_for_each(|one| one.go(&tools.gpu)).map_err(&failed)?;
                gone = of_group.end;
                probe.group(group);
                for op in group.ops.clone().filter(|op| rows > 0 && probe.wants(*op)).collect::<Vec<_>>() {
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

    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda(self.index)
    }

    fn describe(&self) -> String {
        let overlap = if self.tools.gpu.overlap { ", overlapping launches" } else { "" };
        match self.kv {
            KvType::F32 => format!("{}{overlap})", self.device),
            kv => format!("{}{overlap}, {kv} cache)", self.device),
        }
    }

    fn path(&self, rows: usize) -> Path {
        select_path(self.has_experts, rows, FEW_ROWS_MAX, self.path)
    }

    /// Launches are made for sizes of steps: a larger step may cut its sums up in another way.
    fn alike(&self, rows: usize) -> RangeInclusive<usize> {
        self.steps.program.alike(rows)
    }

    fn set_rows_min(&mut self, rows: usize) {
        let tracer = self.tracer.as_mut().map(|tracer| &mut tracer.steps);
        for steps in [Some(&mut self.steps), self.plain.as_mut(), tracer].into_iter().flatten() {
            steps.program.rows_min = rows.clamp(1, self.limits.rows);
        }
        self.drawing.forget_chains();
    }

    fn instructions(&self, _rows: usize) -> String {
        self.tools.gpu.info.arch()
    }

    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), StepError> {
        check_rows(rows, self.limits, self.plan.spec.vocab)?;
        self.sequences.begin(rows)?;
        let (began, probed) = (Instant::now(), probe.is_some());
        self.drawing.end();
        self.tracer.iter_mut().for_each(Tracer::forget);
        let ran = match probe {
            None => self.run(rows).map(|()| true),
            Some(probe) => self.probed(rows, probe),
        };
        if !ran.map_err(|error| self.failed(error))? {
            return Ok(());
        }
        let fetched = self.mailbox.fetch(&self.tools.arena);
        fetched.map_err(|error| self.failed(Error::driver("a step")(error)))?;
        let there = began.elapsed();
        let Cuda { sequences, mailbox, plan, .. } = self;
        sequences.complete_finite(rows, |n| mailbox.logits(n, plan.spec.vocab))?;
        if let Some(tracer) = self.tracer.as_mut().filter(|tracer| tracer.on && !probed) {
            let shape = (rows.len(), self.mailbox.wanted.len());
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

    fn sampler(&mut self) -> Option<&mut dyn DeviceSampler> {
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
