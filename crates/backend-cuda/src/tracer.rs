//! What the device did in a step: every launch leaves two times of the device's clock, which come back with the step.

use std::sync::Arc;
use std::time::Duration;

use amoeba_backend::{Recording, Span, Stage};
use amoeba_kernels::cuda::trace;
use amoeba_plan::Plan;

use crate::Error;
use crate::program::{Part, Program};
use crate::steps::{Stamps, Steps, Tools};
use crate::sys::{Arena, Pinned};

/// Words of a stamp.
const STAMP_WORDS: usize = trace::STAMP_BYTES / 8;
/// Start of a launch that had nothing to do.
const NEVER: u64 = u64::MAX;

/// The program with times. Fields that use the device come before what they use.
pub struct Tracer {
    /// The program; kept from recording to recording.
    pub steps: Steps,
    /// Stamps of the last step.
    host: Pinned<u64>,
    stamps: Arc<Arena>,
    /// Whether steps are recorded.
    pub on: bool,
    /// Least difference that the clock tells, in ns.
    tick: u64,
    last: Option<Last>,
}

/// The last step.
struct Last {
    parts: [Option<(Part, usize)>; 2],
    /// Since its start: when its logits were there, and when they were checked.
    times: [Duration; 2],
}

impl Tracer {
    /// Of a program lowered as the one that runs; nothing of it is compiled yet.
    ///
    /// # Errors
    /// The device has no room for the stamps, or failed.
    pub fn new(tools: &mut Tools, program: Program) -> Result<Tracer, Error> {
        let failed = Error::driver("preparing a recording");
        let body = program.launches_max(Part::Body);
        let count = 1 + body + program.launches_max(Part::Head);
        let arena = Arena::new(&tools.gpu, count * trace::STAMP_BYTES).map_err(&failed)?;
        let tick = tools.launch_on(&trace::tick(arena.base()), &arena)?;
        let mut host = Pinned::<u64>::zeroed(&tools.gpu, count * STAMP_WORDS).map_err(&failed)?;
        tick.go(&tools.gpu).and_then(|()| host.fetch(1, &arena, 0)).map_err(&failed)?;
        let reset = [tools.launch_on(&trace::reset(arena.base(), count), &arena)?];
        let stamps = Stamps { arena: Arc::clone(&arena), reset: Arc::new(reset), first: [1, 1 + body] };
        let tick = host.get()[0];
        Ok(Tracer {
            steps: Steps::new(program, Some(stamps)),
            host,
            stamps: arena,
            on: false,
            tick,
            last: None,
        })
    }

    /// A new step begins.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Keeps the stamps of a step that is done: its rows, those that wanted logits, and times since its start.
    ///
    /// # Errors
    /// The device failed.
    pub fn keep(&mut self, (rows, wanted): (usize, usize), times: [Duration; 2]) -> Result<(), Error> {
        let fetched = self.host.fetch(self.host.len(), &self.stamps, 0);
        fetched.map_err(Error::driver("fetching a recording"))?;
        self.last = Some(Last { parts: self.steps.parts(rows, wanted), times });
        Ok(())
    }

    /// The last step, if it was recorded: one lane with a span for each launch and one for the check of the logits. Time
    /// begins with the first launch on the device; what the host did before counts at the end, behind the last one.
    pub fn recording(&self, plan: &Plan) -> Option<Recording> {
        let Last { parts, times } = self.last.as_ref()?;
        let [there, ns] = times.map(|time| time.as_nanos() as u64);
        let stamps: Vec<&[u64]> = self.host.get().chunks_exact(STAMP_WORDS).collect();
        let (began, mut free, mut lane) = (stamps[0][0], 0, Vec::new());
        let firsts = self.steps.stamps.as_ref().map_or([0; 2], |stamps| stamps.first);
        for &(part, size) in parts.iter().flatten() {
            let marks = &self.steps.program.stretch(part, size).marks;
            for (mark, stamp) in marks.iter().zip(&stamps[firsts[part as usize]..]) {
                if stamp[0] == NEVER {
                    continue;
                }
                // Launches are in order; only the clocks of multiprocessors may be a tick apart.
                let time = |at: u64, least: u64| at.saturating_sub(began).clamp(least, there.max(least));
                let start = time(stamp[0], free);
                let end = time(stamp[1], start);
                let (op, ops) = (Some(mark.op as u32), mark.ops as u32);
                lane.push(Span { phase: lane.len() as u32, op, ops, stage: mark.stage, start, end });
                free = end;
            }
        }
        let (phase, op) = (lane.len() as u32, plan.program.len() as u32 - 1);
        let (start, end) = (there.max(free), ns.max(there).max(free));
        lane.push(Span { phase, op: Some(op), ops: 1, stage: Stage::Check, start, end });
        Some(Recording { lanes: vec![lane], ns: end, tick_ns: self.tick })
    }
}
