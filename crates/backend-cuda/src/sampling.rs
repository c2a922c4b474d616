//! Drawing on the device. A step that ends with a draw writes the next step itself, so it is a graph without a copy, launched
//! again and again; tokens come to the host through a ring in page-locked memory, read after the event of their step, while
//! the next step runs.

use std::sync::Arc;

use amoeba_backend::{DeviceSampler, Drawn, Error as StepError, Limits, Row, check_rows};
use amoeba_kernels::cuda::Places;
use amoeba_kernels::sample::Sampling;
use amoeba_kernels::sample::cuda::{self as sample, ALL_FINITE, Kind, RESULT_WORDS, RING, STATE_WORDS};
use amoeba_plan::Plan;
use cudarc::driver::DriverError;

use crate::arena::Layout;
use crate::steps::Tools;
use crate::sys::{Chain, Launch, Pinned, TokenRing, put_all};
use crate::{Cuda, Error};

/// Most rows of a step that tokens are drawn for: one of each sequence, rounded up to a size that draws are made for.
pub(crate) fn drawn_rows_max(limits: Limits) -> usize {
    limits.slots.min(limits.rows).next_power_of_two().min(limits.rows)
}

/// What draws. Fields that use the device come before what they use.
pub(crate) struct Drawing {
    /// By [`size_of`] and [`Kind`]: a step and a draw; captured when first wanted.
    chains: Vec<[Option<Chain>; Kind::ALL.len()]>,
    /// By the same: a draw; made when first wanted.
    tails: Vec<[Option<Arc<[Launch]>>; Kind::ALL.len()]>,
    at: sample::Places,
    vocab: usize,
    rows_max: usize,
    /// A sequence's state on its way to the device, and the offset of the first there.
    state: Pinned<u32>,
    states_at: usize,
    /// The batch on its way, and its offset there.
    batch: Pinned<u32>,
    batch_at: usize,
    ring: TokenRing,
    /// By slot: how the sequence draws.
    kinds: Vec<Option<Kind>>,
    /// Rows of the step enqueued last; empty if a run has not begun or was ended.
    rows: Vec<Row>,
    /// What the rows that want logits take together.
    kind: Kind,
    /// Number of the step enqueued last.
    asked: u32,
    /// Number of the step taken last.
    taken: u32,
    drawn: Vec<Drawn>,
}

/// Which size of draw so many rows take: 1, 2, 4 and so on.
fn size_of(rows: usize) -> usize {
    rows.next_power_of_two().trailing_zeros() as usize
}

impl Drawing {
    /// With nothing compiled.
    pub(crate) fn new(
        tools: &Tools,
        (layout, at): (&Layout, &Places),
        plan: &Plan,
        limits: Limits,
    ) -> Result<Drawing, Error> {
        let reserving = Error::driver("reserving host memory");
        let rows_max = drawn_rows_max(limits);
        let ring = TokenRing::new(&tools.gpu, [RING, rows_max, RESULT_WORDS]).map_err(&reserving)?;
        let batch = sample::batch_words(rows_max);
        let [states_at, batch_at, work] = layout.sample;
        let logits = at.buffers[plan.logits.0];
        let base = tools.arena.base();
        let sizes = 0..=size_of(rows_max);
        Ok(Drawing {
            chains: sizes.clone().map(|_| Kind::ALL.map(|_| None)).collect(),
            tails: sizes.map(|_| Kind::ALL.map(|_| None)).collect(),
            at: sample::Places {
                logits: logits.address,
                stride: logits.stride,
                states: base + states_at,
                batch: base + batch_at,
                work: base + work,
                step: at.step,
                ring: ring.address(),
                ring_rows: rows_max,
                counters: at.zeroed,
            },
            vocab: plan.spec.vocab,
            rows_max,
            state: Pinned::zeroed(&tools.gpu, STATE_WORDS).map_err(&reserving)?,
            states_at: states_at as usize,
            batch: Pinned::zeroed(&tools.gpu, batch).map_err(&reserving)?,
            batch_at: batch_at as usize,
            ring,
            kinds: vec![None; limits.slots],
            rows: Vec::with_capacity(limits.rows),
            kind: Kind::Greedy,
            asked: 0,
            taken: 0,
            drawn: Vec::with_capacity(rows_max),
        })
    }

    /// Something else is about to run: what was not taken is lost.
    pub(crate) fn end(&mut self) {
        self.rows.clear();
        self.taken = self.asked;
    }

    /// Steps run otherwise from now on.
    pub(crate) fn forget_chains(&mut self) {
        self.chains.iter_mut().flatten().for_each(|chain| *chain = None);
    }

    /// Compiles what all draws need.
    pub(crate) fn warm(&mut self, tools: &mut Tools) -> Result<(), Error> {
        Kind::ALL.into_iter().try_for_each(|kind| self.tail(tools, 1, kind).map(drop))
    }

    /// Launches of a draw for some rows.
    fn tail(&mut self, tools: &mut Tools, rows: usize, kind: Kind) -> Result<Arc<[Launch]>, Error> {
        let tail = &mut self.tails[size_of(rows)][kind as usize];
        if tail.is_none() {
            let rows = rows.next_power_of_two().min(self.rows_max);
            let calls = sample::calls(&self.at, self.vocab, kind, rows);
            let arena = Arc::clone(&tools.arena);
            *tail = Some(calls.iter().map(|call| tools.launch_on(call, &arena)).collect::<Result<_, _>>()?);
        }
        Ok(Arc::clone(tail.as_ref().expect("made just now")))
    }

    /// Rows that tokens are drawn for.
    fn wanted(&self) -> usize {
        self.rows.iter().filter(|row| row.logits).count()
    }

    /// Another draw is on the stream.
    fn sent(&mut self) -> Result<(), DriverError> {
        self.asked = self.asked.wrapping_add(1);
        self.ring.sent(self.asked as usize % RING)
    }

    /// Sends the state of a sequence.
    fn send_state(
        &mut self,
        tools: &Tools,
        (slot, sampling): (usize, &Sampling),
        recent: &[u32],
    ) -> Result<(), DriverError> {
        tools.gpu.bind()?;
        sample::write_state(self.state.fill()?, sampling, recent);
        let at = self.states_at + slot * 4 * STATE_WORDS;
        self.state.send(STATE_WORDS, &tools.arena, at)
    }

    /// Sends which sequences the rows draw for.
    fn send_batch(&mut self, tools: &Tools) -> Result<(), DriverError> {
        tools.gpu.bind()?;
        let Drawing { batch, rows, .. } = self;
        let words = batch.fill()?;
        let len = words.len();
        sample::write_batch(words, rows.iter().filter(|row| row.logits).map(|row| row.slot), self.asked);
        batch.send(len, &tools.arena, self.batch_at)
    }
}

impl Cuda {
    /// Puts rows and a draw on the stream.
    fn put_first(&mut self) -> Result<(), Error> {
        let sampling = Error::driver("sampling");
        self.drawing.send_batch(&self.tools).map_err(&sampling)?;
        let rows = std::mem::take(&mut self.drawing.rows);
        let ran = self.run(&rows);
        self.drawing.rows = rows;
        ran?;
        let Cuda { tools, drawing, launches, .. } = self;
        let tail = drawing.tail(tools, drawing.wanted(), drawing.kind)?;
        *launches = launches.wrapping_add(tail.len() as u32);
        put_all(&tools.gpu, tail.iter()).and_then(|()| drawing.sent()).map_err(sampling)
    }

    /// Puts the step that the last one wrote and a draw on the stream.
    fn put_next(&mut self) -> Result<(), Error> {
        let Cuda { steps, tools, drawing, launches, .. } = self;
        tools.gpu.bind().map_err(Error::driver("a step"))?;
        let (rows, kind) = (drawing.rows.len(), drawing.kind);
        if drawing.chains[size_of(rows)][kind as usize].is_none() {
            let mut lists: Vec<Arc<[Launch]>> =
                steps.stretches(tools, (rows, rows))?.into_iter().map(|(list, _)| list).collect();
            lists.push(drawing.tail(tools, rows, kind)?);
            let captured = Chain::capture(&tools.gpu, lists);
            let captured = captured.map_err(Error::driver("capturing a step"))?;
            drawing.chains[size_of(rows)][kind as usize] = Some(captured);
        }
        let chain = drawing.chains[size_of(rows)][kind as usize].as_mut().expect("captured just now");
        *launches = launches.wrapping_add(chain.launches() as u32);
        chain.go().and_then(|()| drawing.sent()).map_err(Error::driver("a step"))
    }
}

impl DeviceSampler for Cuda {
    fn rows_max(&self) -> usize {
        self.limits.slots.min(self.limits.rows)
    }

    fn refusal(&self, sampling: &Sampling) -> Option<String> {
        let recording = self.tracer.as_ref().is_some_and(|tracer| tracer.on);
        recording.then(|| "steps are being recorded".to_owned()).or_else(|| sample::refusal(sampling))
    }

    fn begin(&mut self, slot: usize, sampling: &Sampling, recent: &[u32]) -> Result<(), StepError> {
        assert!(self.refusal(sampling).is_none(), "a draw that was refused");
        self.drawing.kinds[slot] = Some(Kind::of(sampling));
        let sent = self.drawing.send_state(&self.tools, (slot, sampling), recent);
        sent.map_err(|error| self.failed(Error::driver("sampling")(error)))
    }

    fn enqueue(&mut self, rows: &[Row]) -> Result<(), StepError> {
        check_rows(rows, self.limits, self.plan.spec.vocab)?;
        self.sequences.begin(rows)?;
        let drawing = &mut self.drawing;
        drawing.end();
        drawing.rows.extend_from_slice(rows);
        let kinds = rows.iter().filter(|row| row.logits);
        let kinds = kinds.map(|row| drawing.kinds[row.slot].expect("the sequence has begun"));
        drawing.kind = kinds.reduce(Kind::with).expect("a row that wants logits");
        assert!(drawing.wanted() <= drawing.rows_max, "more rows than tokens are drawn for");
        let put = self.put_first();
        put.map_err(|error| {
            self.drawing.end();
            self.failed(error)
        })
    }

    fn enqueue_next(&mut self) -> Result<(), StepError> {
        let Drawing { rows, asked, taken, .. } = &mut self.drawing;
        assert!(!rows.is_empty(), "nothing was enqueued");
        assert!(asked.wrapping_sub(*taken) as usize + 1 < RING, "too many steps that nobody took");
        let context = self.limits.context;
        let full = rows.iter().find(|row| row.logits && row.position + 1 >= context);
        if let Some(&Row { slot, position, .. }) = full {
            let position = position + 1;
            return Err(StepError::OutOfContext { position, slot, limits: self.limits });
        }
        rows.retain(|row| row.logits);
        rows.iter_mut().for_each(|row| row.position += 1);
        if let Err(error) = self.sequences.begin(rows) {
            rows.iter_mut().for_each(|row| row.position -= 1);
            return Err(error);
        }
        let put = self.put_next();
        put.map_err(|error| self.failed(error))
    }

    fn take(&mut self) -> Result<&[Drawn], StepError> {
        let Drawing { rows, ring, asked, taken, drawn, .. } = &mut self.drawing;
        assert!(asked != taken, "every step was taken");
        let number = taken.wrapping_add(1);
        let (entry, wanted) = (number as usize % RING, rows.iter().filter(|row| row.logits).count());
        *taken = number;
        drawn.clear();
        let waited = ring.wait::<RESULT_WORDS>(entry, wanted).map(|results| {
            drawn.extend(results.map(|[found, token, bad, value]| {
                assert_eq!(found, number, "entries come in order");
                let not_finite = (bad != ALL_FINITE).then(|| (bad as usize, f32::from_bits(value)));
                Drawn { token, not_finite }
            }));
        });
        waited.map_err(|error| self.failed(Error::driver("sampling")(error)))?;
        let Drawing { rows, drawn, .. } = &self.drawing;
        self.sequences.complete(rows);
        for (row, drawn) in rows.iter().filter(|row| row.logits).zip(drawn) {
            if drawn.not_finite.is_some() {
                self.sequences.lose(row.slot);
            }
        }
        Ok(drawn)
    }
}
