//! Drawing on the device. A step that ends with a draw writes the next step itself, so it is a graph without
//! a copy, launched again and again; tokens come to the host through a ring in page-locked memory, read after
//! the event of their step, while the next step runs.

use std::sync::Arc;

use amoeba_kernels::gpu::Places;
use amoeba_kernels::sample::Sampling;
use amoeba_kernels::sample::cuda::{self as sample, ALL_FINITE, Kind, RESULT_WORDS, RING, STATE_WORDS};
use amoeba_plan::Plan;

use super::driver::{Driver, Fault, List};
use super::layout::Layout;
use super::steps::LaunchContext;
use super::{Error, Gpu};
use crate::{Draw, Drawn, Error as StepError, Limits, StepRows};

/// Most rows of a step that tokens are drawn for: one of each sequence, rounded up to a size that draws are
/// made for.
pub(super) fn drawn_rows_max(limits: Limits) -> usize {
    limits.slots.min(limits.rows).next_power_of_two().min(limits.rows)
}

/// Draws tokens. Fields that use the device come before what they use.
pub(super) struct Sampler<D: Driver> {
    /// By [`size_of`] and [`Kind`]: a step and a draw; captured when first wanted.
    chains: Vec<[Option<(D::Graph, usize)>; Kind::ALL.len()]>,
    /// By the same: a draw; made when first wanted.
    tails: Vec<[Option<List<D>>; Kind::ALL.len()]>,
    at: sample::Places,
    vocab: usize,
    rows_max: usize,
    /// A sequence's state on its way to the device, and the offset of the first there.
    state: D::Host<u32>,
    states_at: usize,
    /// The batch on its way, its words, and its offset there.
    batch: D::Host<u32>,
    batch_words: usize,
    batch_at: usize,
    ring: D::Ring,
    /// One entry of it.
    entry: Vec<u32>,
    /// By slot: how the sequence draws.
    kinds: Vec<Option<Kind>>,
    /// How the rows of the last step draw together.
    kind: Kind,
    /// Number of the step enqueued last.
    enqueued: u32,
    /// Number of the step taken last.
    taken: u32,
}

/// Which size of draw `rows` rows take: 1, 2, 4 and so on.
fn size_of(rows: usize) -> usize {
    rows.next_power_of_two().trailing_zeros() as usize
}

impl<D: Driver> Sampler<D> {
    /// With nothing compiled.
    pub(super) fn new(
        on: &LaunchContext<D>,
        (layout, at): (&Layout, &Places),
        plan: &Plan,
        limits: Limits,
    ) -> Result<Sampler<D>, Error> {
        let reserving = Error::driver("reserving host memory");
        let rows_max = drawn_rows_max(limits);
        let words = rows_max * RESULT_WORDS;
        let ring = on.driver.ring(RING, words).map_err(&reserving)?;
        let batch_words = sample::batch_words(rows_max);
        let [states_at, batch_at, work] = layout.sample;
        let logits = at.buffers[plan.logits.0];
        let base = D::address(&on.memory);
        let sizes = 0..=size_of(rows_max);
        Ok(Sampler {
            chains: sizes.clone().map(|_| Kind::ALL.map(|_| None)).collect(),
            tails: sizes.map(|_| Kind::ALL.map(|_| None)).collect(),
            at: sample::Places {
                logits: logits.address,
                stride: logits.stride,
                states: base + states_at,
                batch: base + batch_at,
                work: base + work,
                step: at.step,
                ring: D::ring_address(&ring),
                ring_rows: rows_max,
                counters: at.zeroed,
            },
            vocab: plan.spec.vocab,
            rows_max,
            state: on.driver.host(STATE_WORDS).map_err(&reserving)?,
            states_at: states_at as usize,
            batch: on.driver.host(batch_words).map_err(&reserving)?,
            batch_words,
            batch_at: batch_at as usize,
            ring,
            entry: vec![0; words],
            kinds: vec![None; limits.slots],
            kind: Kind::Greedy,
            enqueued: 0,
            taken: 0,
        })
    }

    /// Another step is about to run: what was not taken is lost.
    pub(super) fn end(&mut self) {
        self.taken = self.enqueued;
    }

    /// Steps have other launches from now on.
    pub(super) fn forget_chains(&mut self) {
        self.chains.iter_mut().flatten().for_each(|chain| *chain = None);
    }

    /// Compiles what all draws need.
    pub(super) fn warm(&mut self, on: &mut LaunchContext<D>) -> Result<(), Error> {
        Kind::ALL.into_iter().try_for_each(|kind| self.tail(on, 1, kind).map(drop))
    }

    /// Launches of a draw for some rows.
    fn tail(&mut self, on: &mut LaunchContext<D>, rows: usize, kind: Kind) -> Result<List<D>, Error> {
        let tail = &mut self.tails[size_of(rows)][kind as usize];
        if tail.is_none() {
            let rows = rows.next_power_of_two().min(self.rows_max);
            let memory = Arc::clone(&on.memory);
            *tail = Some(on.launches_on(&sample::calls(&self.at, self.vocab, kind, rows), &memory)?);
        }
        Ok(Arc::clone(tail.as_ref().expect("made just now")))
    }

    /// Another draw is on the queue.
    fn sent(&mut self, driver: &D) -> Result<(), Fault> {
        self.enqueued = self.enqueued.wrapping_add(1);
        driver.ring_written(&mut self.ring, self.enqueued as usize % RING)
    }

    /// Sends the state of a sequence.
    fn send_state(
        &mut self,
        on: &LaunchContext<D>,
        (slot, sampling): (usize, &Sampling),
        recent: &[u32],
    ) -> Result<(), Fault> {
        on.driver.bind()?;
        sample::write_state(D::fill(&mut self.state)?, sampling, recent);
        let at = self.states_at + slot * 4 * STATE_WORDS;
        on.driver.send(&mut self.state, STATE_WORDS, &on.memory, at)
    }

    /// Sends which sequences the rows draw for.
    fn send_batch(&mut self, on: &LaunchContext<D>, step: &StepRows) -> Result<(), Fault> {
        on.driver.bind()?;
        let slots = step.wanted().iter().map(|&row| step.rows()[row].slot);
        sample::write_batch(D::fill(&mut self.batch)?, slots, self.enqueued);
        on.driver.send(&mut self.batch, self.batch_words, &on.memory, self.batch_at)
    }
}

impl<D: Driver> Gpu<D> {
    /// Puts rows and a draw on the queue.
    fn put_first(&mut self, step: &StepRows) -> Result<(), Error> {
        let sampling = Error::driver("sampling");
        self.sampler.send_batch(&self.on, step).map_err(&sampling)?;
        self.put(step)?;
        let Gpu { on, sampler, launches, .. } = self;
        let tail = sampler.tail(on, step.wanted().len(), sampler.kind)?;
        *launches = launches.wrapping_add(tail.len() as u32);
        let put = on.driver.put(tail.iter());
        put.and_then(|()| sampler.sent(&on.driver)).map_err(sampling)
    }

    /// Puts the step that the last one wrote and a draw on the queue.
    fn put_next(&mut self, rows: usize) -> Result<(), Error> {
        let Gpu { steps, on, sampler, launches, .. } = self;
        on.driver.bind().map_err(Error::driver("a step"))?;
        let (size, kind) = (size_of(rows), sampler.kind);
        if sampler.chains[size][kind as usize].is_none() {
            let mut lists = steps.lists(on, (rows, rows))?;
            lists.push(sampler.tail(on, rows, kind)?);
            let count = lists.iter().map(|list| list.len()).sum();
            let captured = on.driver.capture(None, lists).map_err(Error::driver("capturing a step"))?;
            sampler.chains[size][kind as usize] = Some((captured, count));
        }
        let (chain, count) = sampler.chains[size][kind as usize].as_mut().expect("captured just now");
        *launches = launches.wrapping_add(*count as u32);
        let put = on.driver.replay(chain, None);
        put.and_then(|()| sampler.sent(&on.driver)).map_err(Error::driver("a step"))
    }
}

impl<D: Driver> Draw for Gpu<D> {
    fn begin(&mut self, slot: usize, sampling: &Sampling, recent: &[u32]) -> Result<(), StepError> {
        self.sampler.kinds[slot] = Some(Kind::of(sampling));
        let sent = self.sampler.send_state(&self.on, (slot, sampling), recent);
        sent.map_err(|error| self.failed(Error::driver("sampling")(error)))
    }

    fn enqueue(&mut self, step: &StepRows) -> Result<(), StepError> {
        let sampler = &mut self.sampler;
        sampler.end();
        let slots = step.wanted().iter().map(|&row| step.rows()[row].slot);
        let kinds = slots.map(|slot| sampler.kinds[slot].expect("the sequence has begun"));
        sampler.kind = kinds.reduce(Kind::with).expect("a row that wants logits");
        self.put_first(step).map_err(|error| {
            self.sampler.end();
            self.failed(error)
        })
    }

    fn enqueue_next(&mut self, step: &StepRows) -> Result<(), StepError> {
        let Sampler { enqueued, taken, .. } = &self.sampler;
        assert!(enqueued.wrapping_sub(*taken) as usize + 1 < RING, "too many steps that nobody took");
        self.put_next(step.rows().len()).map_err(|error| self.failed(error))
    }

    fn take(&mut self, rows: usize, drawn: &mut Vec<Drawn>) -> Result<(), StepError> {
        let Sampler { ring, entry, taken, .. } = &mut self.sampler;
        let number = taken.wrapping_add(1);
        *taken = number;
        let words = &mut entry[..rows * RESULT_WORDS];
        let read = self.on.driver.ring_read(ring, number as usize % RING, words);
        read.map_err(|error| self.failed(Error::driver("sampling")(error)))?;
        let results = self.sampler.entry.chunks_exact(RESULT_WORDS).take(rows);
        drawn.extend(results.map(|result| {
            assert_eq!(result[0], number, "entries come in order");
            let (token, bad) = (result[1], result[2]);
            let not_finite = (bad != ALL_FINITE).then(|| (bad as usize, f32::from_bits(result[3])));
            Drawn { token, not_finite }
        }));
        Ok(())
    }
}
