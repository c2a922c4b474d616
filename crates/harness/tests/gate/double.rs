//! Executables that are broken in a known way, and one that is not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_backend::{
    DeviceKind, Error, Executable, Limits, Probe, Recording, Reference, Row, Span, Stage, forward_executable,
};
use amoeba_plan::{Op, Path, PathChoice, PathKind, Plan, Reason, select_path};
use half::bf16;

/// What is wrong with the experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Each expert's output is rounded to bf16 before the weighted sum.
    Bf16Partials,
    /// The last expert of each row is left out.
    DroppedExpert,
    /// A layer hands out what it computed for the step before.
    StaleBuffer,
    /// Rounding depends on the number of threads.
    Threads,
    /// Rounding depends on what the memory held, which differs with every load.
    Garbage,
    /// Rounding depends on how many steps ran before.
    Steps,
    /// Rounding depends on the number of rows of the step.
    Rows,
    /// Rounding depends on whether other sequences are in the step.
    Company,
    /// Weights of the experts are read a second time.
    ReadsTwice,
}

/// Runs the program op by op with the reference's maths, which is exact: an error is the fault's.
pub struct Interpreted {
    reference: Reference,
    plan: Plan,
    fault: Fault,
    choice: PathChoice,
    threads: usize,
    load: u64,
    steps: u32,
    logits: Vec<Vec<f32>>,
    /// What each experts op computed last, row by row.
    last: HashMap<usize, Vec<Vec<f32>>>,
    recording: Recording,
    phases: u32,
}

impl Interpreted {
    /// The `load`th of its report.
    pub fn new(
        reference: Reference,
        fault: Fault,
        choice: PathChoice,
        threads: usize,
        load: u64,
    ) -> Interpreted {
        Interpreted {
            plan: reference.plan().clone(),
            reference,
            fault,
            choice,
            threads,
            load,
            steps: 0,
            logits: Vec::new(),
            last: HashMap::new(),
            recording: Recording::default(),
            phases: 0,
        }
    }

    fn experts(&mut self, index: usize, rows: &[Row]) -> Result<(), Error> {
        let Op::Experts(op) = self.plan.program[index].op.clone() else { return Ok(()) };
        let route = self.reference.buffer(op.route).to_vec();
        let honest = self.reference.buffer(op.out).to_vec();
        let rounding = |odd: bool| if odd { 1.0 + f32::EPSILON * 4.0 } else { 1.0 };
        let scaled =
            |factor: f32| honest.iter().map(|row| row.iter().map(|x| x * factor).collect()).collect();
        let spoilt: Vec<Vec<f32>> = match self.fault {
            Fault::None | Fault::ReadsTwice => return Ok(()),
            Fault::Bf16Partials => {
                let mut sum = vec![vec![0.0; op.hidden]; rows.len()];
                for k in 0..op.top_k {
                    for (sum, part) in sum.iter_mut().zip(self.with_weights(index, rows, &route, |i| i == k)?)
                    {
                        sum.iter_mut().zip(part).for_each(|(y, x)| *y += bf16::from_f32(x).to_f32());
                    }
                }
                sum
            }
            Fault::DroppedExpert => self.with_weights(index, rows, &route, |i| i + 1 < op.top_k)?,
            Fault::StaleBuffer => {
                let stale = self.last.insert(index, honest.clone()).unwrap_or_else(|| honest.clone());
                honest.iter().zip(stale.iter().chain(&honest)).map(|(_, stale)| stale.clone()).collect()
            }
            Fault::Threads => scaled(rounding(self.threads == 3)),
            Fault::Garbage => scaled(rounding(self.load.is_multiple_of(2))),
            Fault::Steps => scaled(rounding(self.steps.is_multiple_of(2))),
            Fault::Rows => scaled(rounding(rows.len() == 1)),
            Fault::Company => scaled(rounding(rows.iter().any(|row| row.slot > 0))),
        };
        self.reference.set_buffer(op.route, route);
        self.reference.set_buffer(op.out, spoilt);
        Ok(())
    }

    /// The op again, with the weights of some choices only.
    fn with_weights(
        &mut self,
        index: usize,
        rows: &[Row],
        route: &[Vec<f32>],
        keep: impl Fn(usize) -> bool,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let Op::Experts(op) = self.plan.program[index].op.clone() else { return Ok(Vec::new()) };
        let kept = |row: &Vec<f32>| {
            let weight = |(i, x): (usize, &f32)| if i < op.top_k || keep(i - op.top_k) { *x } else { 0.0 };
            row.iter().enumerate().map(weight).collect()
        };
        self.reference.set_buffer(op.route, route.iter().map(kept).collect());
        self.reference.run_op(index, rows)?;
        Ok(self.reference.buffer(op.out).to_vec())
    }

    /// As if every op took 10 ns of one worker.
    fn record(&mut self) {
        let fused = self.choice != PathChoice::Unfused;
        let mut lane: Vec<Span> = Vec::new();
        for (op, step) in self.plan.program.iter().enumerate() {
            let stages: &[Stage] = match &step.op {
                Op::Experts(_) if fused && self.fault == Fault::ReadsTwice => {
                    &[Stage::Fused, Stage::Fused, Stage::GateUp, Stage::Combine]
                }
                Op::Experts(_) if fused => &[Stage::Fused, Stage::Combine],
                Op::Experts(_) => &[Stage::GateUp, Stage::Inner, Stage::Down, Stage::Combine],
                _ => &[Stage::Whole],
            };
            for &stage in stages {
                let (phase, start) = (lane.len() as u32, 10 * lane.len() as u64);
                lane.push(Span { phase, op: Some(op as u32), ops: 1, stage, start, end: start + 10 });
            }
        }
        self.phases = self.phases.wrapping_add(lane.len() as u32);
        self.recording = Recording { ns: 10 * lane.len() as u64, lanes: vec![lane], tick_ns: 0 };
    }
}

impl Executable for Interpreted {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn limits(&self) -> Limits {
        self.reference.limits()
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Cpu
    }

    fn describe(&self) -> String {
        format!("interpreted, {:?}", self.fault)
    }

    fn path(&self, rows: usize) -> Path {
        select_path(true, rows, 8, self.choice)
    }

    fn step(&mut self, rows: &[Row], mut probe: Option<&mut dyn Probe>) -> Result<(), Error> {
        assert!(rows.iter().all(|row| row.logits), "the double computes all logits");
        self.steps += 1;
        for op in 0..self.plan.program.len() {
            self.reference.run_op(op, rows)?;
            self.experts(op, rows)?;
            if let Some(probe) = probe.as_mut().filter(|probe| probe.wants(op)) {
                probe.see(op, self.reference.buffers());
            }
        }
        self.logits = self.reference.buffer(self.plan.logits).to_vec();
        Interpreted::record(self);
        Ok(())
    }

    fn logits(&self, n: usize) -> &[f32] {
        &self.logits[n]
    }

    fn memory(&self) -> usize {
        0
    }

    fn phases(&self) -> Option<u32> {
        Some(self.phases)
    }

    fn record(&mut self, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn recorded(&mut self) -> Result<Recording, Error> {
        Ok(self.recording.clone())
    }
}

/// Another executable, of which something else is said than is true.
pub struct Wrapped {
    pub inner: Box<dyn Executable>,
    /// Says that steps of at most eight rows run fused.
    pub claims_fused: bool,
    /// Phases that each step has more.
    pub extra_phases: u32,
    /// Time advances by this many ns a step.
    pub step_ns: u64,
    pub clock: Arc<AtomicU64>,
    /// Hands out the logits of the step before.
    pub stale_logits: bool,
    pub steps: u32,
    pub before: Vec<Vec<f32>>,
}

impl Executable for Wrapped {
    forward_executable!(inner: plan, limits, kind, describe, memory, record, recorded);

    fn path(&self, rows: usize) -> Path {
        if self.claims_fused && rows <= 8 {
            return Path { kind: PathKind::Fused, reason: Reason::RowsFit { rows, rows_max: 8 } };
        }
        self.inner.path(rows)
    }

    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), Error> {
        self.steps += 1;
        self.clock.fetch_add(self.step_ns, Ordering::Relaxed);
        let computed = self.before.len();
        if self.stale_logits && computed > 0 {
            self.before = (0..computed).map(|n| self.inner.logits(n).to_vec()).collect();
        }
        self.inner.step(rows, probe)?;
        if self.stale_logits {
            let honest = (self.before.len()..rows.len()).map(|n| self.inner.logits(n).to_vec());
            let honest: Vec<_> = honest.collect();
            self.before.extend(honest);
            self.before.truncate(rows.len());
        }
        Ok(())
    }

    fn logits(&self, n: usize) -> &[f32] {
        if self.stale_logits { &self.before[n] } else { self.inner.logits(n) }
    }

    fn phases(&self) -> Option<u32> {
        Some(self.inner.phases()?.wrapping_add(self.steps.wrapping_mul(self.extra_phases)))
    }
}
