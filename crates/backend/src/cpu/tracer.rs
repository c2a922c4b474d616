//! Records what the workers do: a list per worker, reserved beforehand, and two reads of the cycle counter
//! per item.

use std::time::Instant;

use super::Step;
use super::shared::PerWorker;
use crate::Error;
use crate::trace::{Recording, Span, Stage};

/// The lists of all workers. The clock is the processor's counter, which costs a tenth of the system's where
/// that is a call; it is converted by its readings at both ends of the step, so its rate need not be known,
/// but it must run evenly and alike on all cores, as it does on every processor of the last decade.
pub struct Tracer {
    lanes: PerWorker<Lane>,
    /// Spans reserved per worker.
    reserved: usize,
    /// The step at work, or the last one, is recorded.
    pub active: bool,
    began: Instant,
    first: u64,
    /// Duration in ticks and ns, once the step is done.
    whole: Option<(u64, u64)>,
}

/// One worker's list, in ticks.
struct Lane {
    spans: Vec<Span>,
    /// Spans that found no room.
    refused: usize,
    /// End of the last span, or start of the step.
    last: u64,
}

impl Tracer {
    /// Reserves room for `spans` spans of each worker.
    ///
    /// # Errors
    /// The system has no room.
    pub fn new(workers: usize, spans: usize) -> Result<Tracer, Error> {
        let mut lanes = PerWorker::new(workers, || Lane { spans: Vec::new(), refused: 0, last: 0 });
        for lane in lanes.all() {
            let bytes = spans.saturating_mul(size_of::<Span>());
            lane.spans.try_reserve_exact(spans).map_err(|_| Error::OutOfMemory { bytes })?;
        }
        Ok(Tracer { lanes, reserved: spans, active: false, began: Instant::now(), first: 0, whole: None })
    }

    /// Forgets the last step and starts the clock, if this one is to be recorded.
    pub fn begin(&mut self, active: bool) {
        (self.active, self.whole) = (active, None);
        self.began = Instant::now();
        self.first = ticks(self.began);
        let first = self.first;
        self.lanes.all().for_each(|lane| {
            lane.spans.clear();
            (lane.refused, lane.last) = (0, first);
        });
    }

    /// Stops the clock; what the caller did after the last phase is the check of the logits, the output of
    /// `op`.
    pub fn end(&mut self, phase: usize, op: usize) {
        self.add(0, span(phase, Some(op), Stage::Check));
        let ns = self.began.elapsed().as_nanos() as u64;
        self.whole = Some((ticks(self.began) - self.first, ns));
    }

    /// Ends a span of a worker now; it began with the end of the worker's last one.
    pub fn add(&self, worker: usize, span: Span) {
        let lane = self.lanes.get(worker);
        let (start, end) = (lane.last, ticks(self.began));
        lane.last = end;
        if lane.spans.len() < lane.spans.capacity() {
            lane.spans.push(Span { start, end, ..span });
        } else {
            lane.refused += 1;
        }
    }

    /// The time since the worker's last span is not work.
    fn skip(&self, worker: usize) {
        self.lanes.get(worker).last = ticks(self.began);
    }

    /// The last step, in ns.
    ///
    /// # Errors
    /// It was not recorded, or there was no room for all of it.
    pub fn recording(&mut self) -> Result<Recording, Error> {
        let (ticks, ns) = self.whole.filter(|_| self.active).ok_or(Error::NotRecorded)?;
        let (reserved, first) = (self.reserved, self.first);
        let time = |at: u64| {
            let share = at.saturating_sub(first).min(ticks) as f64 / ticks.max(1) as f64;
            (share * ns as f64) as u64
        };
        let lanes = self.lanes.all().map(|lane| match lane.refused {
            0 => {
                Ok(lane.spans.iter().map(|s| Span { start: time(s.start), end: time(s.end), ..*s }).collect())
            }
            refused => Err(Error::RecordingFull { reserved, needed: lane.spans.len() + refused }),
        });
        Ok(Recording { lanes: lanes.collect::<Result<_, _>>()?, ns, tick_ns: 0 })
    }
}

/// The processor's counter.
#[cfg(target_arch = "x86_64")]
fn ticks(_began: Instant) -> u64 {
    // SAFETY: the instruction only reads the counter; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The processor's counter.
#[cfg(target_arch = "aarch64")]
fn ticks(_began: Instant) -> u64 {
    let ticks: u64;
    // SAFETY: reads the virtual counter, which systems leave open to programs; touches no memory and no
    // flags.
    unsafe {
        core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags))
    };
    ticks
}

/// The system's clock.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn ticks(began: Instant) -> u64 {
    began.elapsed().as_nanos() as u64
}

impl Step<'_> {
    /// Runs one item and records it, a span for each part.
    pub(super) fn traced(&self, tracer: &Tracer, phase: usize, item: usize, worker: usize) {
        tracer.skip(worker);
        let this = &*self.model.phases.phases[phase];
        for part in 0..this.parts() {
            this.item(&Step { parts: part..part + 1, ..self.clone() }, item, worker);
            let (op, stage) = this.span(self, item, part);
            tracer.add(worker, span(phase, op, stage));
        }
    }

    /// Records the serial start of a phase that has items.
    pub(super) fn traced_start(&self, tracer: &Tracer, phase: usize, worker: usize) {
        let this = &*self.model.phases.phases[phase];
        let op = (0..this.parts()).find_map(|part| this.span(self, 0, part).0);
        tracer.add(worker, span(phase, op, Stage::Start));
    }
}

/// A span whose times are still to come.
fn span(phase: usize, op: Option<usize>, stage: Stage) -> Span {
    Span { phase: phase as u32, op: op.map(|op| op as u32), ops: 1, stage, start: 0, end: 0 }
}
