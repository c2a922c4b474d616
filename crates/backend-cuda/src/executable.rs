//! A model on a CUDA device: steps of up to eight rows are one graph, longer ones go through their list of launches.

use std::sync::Arc;

use amoeba_backend::{
    Error as StepError, Executable, Flow, KvType, Limits, Probe, Row, Sequences, check_finite, check_rows,
};
use amoeba_kernels::cuda::{Place, STEP_HEAD_BYTES, StepRow};
use amoeba_plan::{Op, Path, PathChoice, Plan, select_path};
use cudarc::driver::DriverError;

use crate::arena::Layout;
use crate::probe::View;
use crate::program::{DECODE_ROWS_MAX, Program};
use crate::sys::{Arena, Gpu, Graph, Launch, Pinned, told};
use crate::{CudaOptions, Error};

/// u32 words of the step before its rows, and of each row.
const HEAD_WORDS: usize = STEP_HEAD_BYTES / 4;
const ROW_WORDS: usize = size_of::<StepRow>() / 4;

/// A loaded model. Fields that use the device come before what they use.
pub struct Cuda {
    /// By size of step; captured when a step first has it.
    graphs: Vec<Option<Graph>>,
    program: Program<Arc<[Launch]>>,
    mailbox: Mailbox,
    arena: Arc<Arena>,
    gpu: Gpu,
    plan: Plan,
    limits: Limits,
    path: PathChoice,
    kv: KvType,
    has_experts: bool,
    sequences: Sequences,
    /// "cuda:0 (NVIDIA H200, sm_90a, CUDA 13.0".
    device: String,
}

/// What goes to the device and comes back.
struct Mailbox {
    /// The step as kernels read it.
    step: Pinned<u32>,
    /// Its offset in the arena.
    step_at: usize,
    /// Rows of the step that want logits.
    wanted: Vec<usize>,
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
        let logits_at = plan.buffer_named("logits").map_or_else(Place::default, |id| at.buffers[id.0]);
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

    fn words(rows: usize) -> usize {
        HEAD_WORDS + rows * ROW_WORDS
    }
}

impl Cuda {
    /// Everything but the weights is in place.
    pub(crate) fn new(
        (gpu, arena): (Gpu, Arc<Arena>),
        program: Program<Arc<[Launch]>>,
        layout: &Layout,
        plan: Plan,
        options: &CudaOptions,
        device: String,
    ) -> Result<Cuda, Error> {
        let limits = options.limits;
        let mailbox =
            Mailbox::new(&gpu, &plan, layout, limits).map_err(Error::driver("reserving host memory"))?;
        let decode = program.sizes.iter().filter(|size| **size <= DECODE_ROWS_MAX).count();
        Ok(Cuda {
            graphs: (0..decode).map(|_| None).collect(),
            program,
            mailbox,
            arena,
            gpu,
            has_experts: plan.program.iter().any(|step| matches!(step.op, Op::Experts(_))),
            sequences: Sequences::new(&plan, limits),
            plan,
            limits,
            path: options.path,
            kv: options.kv,
            device,
        })
    }

    /// Captures the steps of one row, so that the first token does not pay for it.
    pub(crate) fn warm(&mut self) -> Result<(), Error> {
        self.graph(0).map(|_| ()).map_err(Error::driver("capturing a step"))
    }

    /// The graph of a size, captured if it was not yet.
    fn graph(&mut self, size: usize) -> Result<&mut Graph, DriverError> {
        let Mailbox { step, step_at, .. } = &mut self.mailbox;
        if self.graphs[size].is_none() {
            let lists = [&self.program.bodies[size], &self.program.heads[size]];
            let lists = lists.map(|stretch| Arc::clone(&stretch.launches)).to_vec();
            let words = Mailbox::words(self.program.sizes[size]);
            let graph = Graph::capture(&self.gpu, step, &self.arena, (words, *step_at), lists)?;
            self.graphs[size] = Some(graph);
        }
        Ok(self.graphs[size].as_mut().expect("captured just now"))
    }

    fn failed(&self, error: DriverError) -> StepError {
        StepError::Device { device: format!("{})", self.device), what: "a step", said: told(error) }
    }

    /// Puts a step on the stream.
    fn run(&mut self, rows: &[Row]) -> Result<(), DriverError> {
        self.gpu.bind()?;
        self.mailbox.write(rows)?;
        let size = self.program.size_of(rows.len());
        if size < self.graphs.len() {
            self.graph(size)?;
            let Some(graph) = &mut self.graphs[size] else { return Ok(()) };
            return graph.go(&mut self.mailbox.step);
        }
        self.send(rows.len())?;
        let head = self.program.size_of(self.mailbox.wanted.len());
        let head = (!self.mailbox.wanted.is_empty()).then(|| &self.program.heads[head]);
        let stretches = [Some(&self.program.bodies[size]), head];
        let launches = stretches.into_iter().flatten().flat_map(|stretch| stretch.launches.iter());
        launches.into_iter().try_for_each(|launch| launch.go(&self.gpu))
    }

    fn send(&mut self, rows: usize) -> Result<(), DriverError> {
        let Mailbox { step, step_at, .. } = &mut self.mailbox;
        step.send(Mailbox::words(rows), &self.arena, *step_at)
    }

    /// Runs op by op and shows each to the probe; false if the probe stopped the step.
    fn probed(&mut self, rows: &[Row], probe: &mut dyn Probe) -> Result<bool, DriverError> {
        self.gpu.bind()?;
        self.mailbox.write(rows)?;
        self.send(rows.len())?;
        let wanted = self.mailbox.wanted.len();
        let body = self.program.size_of(rows.len());
        let head = self.program.size_of(wanted);
        let head = (wanted > 0).then(|| (&self.program.heads[head], wanted));
        let stretches = [Some((&self.program.bodies[body], rows.len())), head];
        for (stretch, rows) in stretches.into_iter().flatten() {
            for (ops, launches) in &stretch.ops {
                stretch.launches[launches.clone()].iter().try_for_each(|launch| launch.go(&self.gpu))?;
                for op in ops.clone().filter(|op| probe.wants(*op)).collect::<Vec<_>>() {
                    let Mailbox { buffers, row, .. } = &mut self.mailbox;
                    let view = View::new(&self.plan, buffers, &self.arena, row, rows);
                    let flow = probe.see(op, &view);
                    if let Some(error) = view.error() {
                        return Err(error);
                    }
                    if flow == Flow::Stop {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Brings the logits and waits for them.
    fn fetch(&mut self) -> Result<(), DriverError> {
        let Mailbox { wanted, logits, logits_at: Place { address, stride }, .. } = &mut self.mailbox;
        match wanted.len() {
            0 => Ok(()),
            rows => logits.fetch(rows * *stride, &self.arena, *address as usize),
        }
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
        match self.kv {
            KvType::F32 => format!("{})", self.device),
            kv => format!("{}, {kv} cache)", self.device),
        }
    }

    fn path(&self, rows: usize) -> Path {
        select_path(self.has_experts, rows, DECODE_ROWS_MAX, self.path)
    }

    fn instructions(&self, _rows: usize) -> String {
        self.gpu.info.arch()
    }

    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), StepError> {
        check_rows(rows, self.limits, self.plan.spec.vocab)?;
        self.sequences.begin(rows)?;
        let ran = match probe {
            None => self.run(rows).map(|()| true),
            Some(probe) => self.probed(rows, probe),
        };
        if !ran.map_err(|error| self.failed(error))? {
            return Ok(());
        }
        self.fetch().map_err(|error| self.failed(error))?;
        let wanted = &self.mailbox.wanted;
        (0..wanted.len()).try_for_each(|n| check_finite(self.logits(n), wanted[n]))?;
        self.sequences.complete(rows);
        Ok(())
    }

    fn logits(&self, n: usize) -> &[f32] {
        let start = n * self.mailbox.logits_at.stride;
        &self.mailbox.logits.get()[start..start + self.plan.spec.vocab]
    }

    fn memory(&self) -> usize {
        self.arena.bytes()
    }
}
