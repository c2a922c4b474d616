//! What the device did in a step: every launch leaves two times of the device's clock, which come back with
//! the step.

use std::sync::Arc;
use std::time::Duration;

use amoeba_kernels::cuda::trace;
use amoeba_plan::Plan;

use super::Error;
use super::driver::Driver;
use super::program::{Program, Section};
use super::steps::{LaunchContext, Stamps, Steps};
use crate::{Recording, Span, Stage};

/// Words of a stamp.
const STAMP_WORDS: usize = trace::STAMP_BYTES / 8;
/// Start of a launch that had nothing to do.
const NEVER: u64 = u64::MAX;

/// The program with times. Fields that use the device come before what they use.
pub struct Tracer<D: Driver> {
    /// The program; kept from recording to recording.
    pub steps: Steps<D>,
    /// Stamps of the last step.
    host: D::Host<u64>,
    words: usize,
    stamps: Arc<D::Memory>,
    /// Whether steps are recorded.
    pub on: bool,
    probed: bool,
    /// Resolution of the device's clock in ns.
    tick: u64,
    last: Option<Last>,
}

/// The last step.
struct Last {
    sections: [Option<(Section, usize)>; 2],
    /// Since its start: when its logits were there, and when they were checked.
    times: [Duration; 2],
}

impl<D: Driver> Tracer<D> {
    /// Of a program lowered as the one that runs; nothing of it is compiled yet.
    ///
    /// # Errors
    /// The device has no room for the stamps, or failed.
    pub fn new(on: &mut LaunchContext<D>, program: Program) -> Result<Tracer<D>, Error> {
        let failed = Error::driver("preparing a recording");
        let body = program.launches_max(Section::Body);
        let count = 1 + body + program.launches_max(Section::Head);
        let words = count * STAMP_WORDS;
        let memory = on.driver.reserve(count * trace::STAMP_BYTES).map_err(&failed)?;
        let address = D::address(&memory);
        let tick = on.launches_on(&[trace::tick(address)], &memory)?;
        let mut host = on.driver.host::<u64>(words).map_err(&failed)?;
        let ticked = on.driver.put(tick.iter());
        ticked.and_then(|()| on.driver.fetch(&mut host, 1, &memory, 0)).map_err(&failed)?;
        let reset = on.launches_on(&[trace::reset(address, count)], &memory)?;
        let stamps = Stamps { memory: Arc::clone(&memory), reset, first: [1, 1 + body] };
        let (steps, tick) = (Steps::new(program, Some(stamps)), D::get(&host)[0]);
        Ok(Tracer { steps, host, words, stamps: memory, on: false, probed: false, tick, last: None })
    }

    /// A new step begins; one that is probed is not recorded.
    pub fn forget(&mut self, probed: bool) {
        (self.last, self.probed) = (None, probed);
    }

    /// Whether the step is recorded.
    pub fn records(&self) -> bool {
        self.on && !self.probed
    }

    /// Keeps the stamps of a step that is done: its rows, those that wanted logits, and times since its
    /// start.
    ///
    /// # Errors
    /// The device failed.
    pub fn keep(
        &mut self,
        driver: &D,
        (rows, wanted): (usize, usize),
        times: [Duration; 2],
    ) -> Result<(), Error> {
        let fetched = driver.fetch(&mut self.host, self.words, &self.stamps, 0);
        fetched.map_err(Error::driver("fetching a recording"))?;
        self.last = Some(Last { sections: self.steps.sections(rows, wanted), times });
        Ok(())
    }

    /// The last step, if it was recorded: one lane with a span for each launch and one for the check of the
    /// logits. Time begins with the first launch on the device; what the host did before is counted at the
    /// end, after the last one.
    pub fn recording(&self, plan: &Plan) -> Option<Recording> {
        let Last { sections, times } = self.last.as_ref()?;
        let [there, ns] = times.map(|time| time.as_nanos() as u64);
        let stamps: Vec<&[u64]> = D::get(&self.host).chunks_exact(STAMP_WORDS).collect();
        let (began, mut free, mut lane) = (stamps[0][0], 0, Vec::new());
        let firsts = self.steps.stamps.as_ref().map_or([0; 2], |stamps| stamps.first);
        for &(section, size) in sections.iter().flatten() {
            let infos = &self.steps.program.segment(section, size).infos;
            for (info, stamp) in infos.iter().zip(&stamps[firsts[section as usize]..]) {
                if stamp[0] == NEVER {
                    continue;
                }
                // Launches are in order; only the clocks of multiprocessors may be a tick apart.
                let time = |at: u64, least: u64| at.saturating_sub(began).clamp(least, there.max(least));
                let start = time(stamp[0], free);
                let end = time(stamp[1], start);
                let (op, ops) = (Some(info.op as u32), info.ops as u32);
                lane.push(Span { phase: lane.len() as u32, op, ops, stage: info.stage, start, end });
                free = end;
            }
        }
        let (phase, op) = (lane.len() as u32, plan.program.len() as u32 - 1);
        let (start, end) = (there.max(free), ns.max(there).max(free));
        lane.push(Span { phase, op: Some(op), ops: 1, stage: Stage::Check, start, end });
        Some(Recording { lanes: vec![lane], ns: end, tick_ns: self.tick })
    }
}
