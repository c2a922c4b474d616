//! Drawing on the device. A step that ends with a draw writes the next step itself, so it is a graph without a copy, launched
//! again and again; the token comes to the host by mail, which is looked at when its step is done, while the next one runs.

use std::sync::Arc;

use amoeba_backend::{Draws, Error as StepError, Row};
use amoeba_kernels::cuda::Places;
use amoeba_kernels::sample::Sampling;
use amoeba_kernels::sample::cuda::{self as sample, ALL_FINITE, Kind, MAIL_WORDS, MAILS, STATE_WORDS};
use amoeba_plan::Plan;
use cudarc::driver::DriverError;

use crate::arena::Layout;
use crate::steps::Tools;
use crate::sys::{Chain, Launch, Mails, Pinned, put_all};
use crate::{Cuda, Error};

/// What draws. Fields that use the device come before what they use.
pub(crate) struct Drawing {
    /// By [`Kind`]: a step of one row and a draw; captured when first wanted.
    chains: [Option<Chain>; Kind::ALL.len()],
    /// By [`Kind`]: a draw.
    tails: [Arc<[Launch]>; Kind::ALL.len()],
    state: Pinned<u32>,
    /// Its offset in the arena.
    state_at: usize,
    mails: Mails,
    /// What was begun.
    begun: Option<Begun>,
    /// Number of the last mail that is on its way.
    asked: u32,
    /// Number of the last one that was read.
    taken: u32,
}

/// A sequence that goes on by itself.
#[derive(Clone, Copy)]
struct Begun {
    kind: Kind,
    slot: usize,
    /// Position of the token that the mail of this number brought first.
    first: (usize, u32),
}

impl Begun {
    /// The row whose step the mail of that number, which is not the first, ends.
    fn row(&self, number: u32) -> Row {
        let (position, first) = self.first;
        let position = position + number.wrapping_sub(first) as usize - 1;
        Row { token: 0, slot: self.slot, position, logits: true }
    }
}

impl Drawing {
    /// Compiles what it needs.
    pub(crate) fn new(
        tools: &mut Tools,
        (layout, at): (&Layout, &Places),
        plan: &Plan,
    ) -> Result<Drawing, Error> {
        let reserving = Error::driver("reserving host memory");
        let mails = Mails::new(&tools.gpu, MAILS, MAIL_WORDS).map_err(&reserving)?;
        let state = Pinned::zeroed(&tools.gpu, STATE_WORDS).map_err(&reserving)?;
        let arena = Arc::clone(&tools.arena);
        let [state_at, work] = layout.sample;
        let places = sample::Places {
            logits: at.buffers[plan.logits.0].address,
            state: arena.base() + state_at,
            work: arena.base() + work,
            step: at.step,
            mails: mails.address(),
            counter: at.zeroed,
        };
        let mut tail = |kind| {
            let calls = sample::calls(&places, plan.spec.vocab, kind);
            calls.iter().map(|call| tools.launch_on(call, &arena)).collect::<Result<Arc<[Launch]>, Error>>()
        };
        let [greedy, top_k, top_p, plain] = Kind::ALL;
        Ok(Drawing {
            chains: Kind::ALL.map(|_| None),
            tails: [tail(greedy)?, tail(top_k)?, tail(top_p)?, tail(plain)?],
            state,
            state_at: state_at as usize,
            mails,
            begun: None,
            asked: 0,
            taken: 0,
        })
    }

    /// Something else is about to run: what was not taken is lost.
    pub(crate) fn end(&mut self) {
        self.begun = None;
    }

    /// Another draw is on the stream.
    fn sent(&mut self) -> Result<(), DriverError> {
        self.asked = self.asked.wrapping_add(1);
        self.mails.sent(self.asked as usize % MAILS)
    }
}

impl Cuda {
    /// Puts a step and a draw on the stream.
    fn link(&mut self, kind: Kind) -> Result<(), Error> {
        let Cuda { steps, tools, drawing, launches, .. } = self;
        tools.gpu.bind().map_err(Error::driver("a step"))?;
        let tail = &drawing.tails[kind as usize];
        let chain = &mut drawing.chains[kind as usize];
        if chain.is_none() {
            let mut lists: Vec<Arc<[Launch]>> =
                steps.stretches(tools, (1, 1))?.into_iter().map(|(list, _)| list).collect();
            lists.push(Arc::clone(tail));
            let captured = Chain::capture(&tools.gpu, lists);
            *chain = Some(captured.map_err(Error::driver("capturing a step"))?);
        }
        let chain = chain.as_mut().expect("captured just now");
        *launches = launches.wrapping_add(chain.launches() as u32);
        chain.go().and_then(|()| drawing.sent()).map_err(Error::driver("a step"))?;
        Ok(())
    }

    /// Starts a sequence's draws with the logits that are there.
    fn start(&mut self, sampling: &Sampling, recent: &[u32], slot: usize) -> Result<(), DriverError> {
        let Cuda { tools, drawing, .. } = self;
        tools.gpu.bind()?;
        // Waits until nothing of an earlier sequence is on the stream.
        let state = drawing.state.fill()?;
        sample::write_state(state, sampling, recent, (slot, recent.len()), drawing.asked);
        drawing.state.send(STATE_WORDS, &tools.arena, drawing.state_at)?;
        let kind = Kind::of(sampling);
        put_all(&tools.gpu, drawing.tails[kind as usize].iter())?;
        drawing.taken = drawing.asked;
        drawing.sent()?;
        drawing.begun = Some(Begun { kind, slot, first: (recent.len(), drawing.asked) });
        Ok(())
    }
}

impl Draws for Cuda {
    fn refusal(&self, sampling: &Sampling) -> Option<String> {
        let recording = self.tracer.as_ref().is_some_and(|tracer| tracer.on);
        recording.then(|| "steps are being recorded".to_owned()).or_else(|| sample::refusal(sampling))
    }

    fn begin(&mut self, sampling: &Sampling, recent: &[u32], slot: usize) -> Result<(), StepError> {
        assert!(!self.rows.wanted().is_empty(), "a draw without logits");
        assert!(self.refusal(sampling).is_none(), "a draw that was refused");
        let started = self.start(sampling, recent, slot);
        started.map_err(|error| self.failed(Error::driver("sampling")(error)))
    }

    fn go_on(&mut self) -> Result<(), StepError> {
        let Drawing { begun, asked, taken, .. } = &self.drawing;
        let begun = begun.expect("a sequence was begun");
        assert!(asked.wrapping_sub(*taken) as usize + 1 < MAILS, "too many tokens that nobody took");
        let row = begun.row(asked.wrapping_add(1));
        if row.position >= self.limits.context {
            let Row { slot, position, .. } = row;
            return Err(StepError::OutOfContext { position, slot, limits: self.limits });
        }
        self.rows.sequences.begin(&[row])?;
        self.link(begun.kind).map_err(|error| self.failed(error))
    }

    fn token(&mut self) -> Result<u32, StepError> {
        let drawing = &mut self.drawing;
        assert!(drawing.asked != drawing.taken, "a token that nobody drew");
        let number = drawing.taken.wrapping_add(1);
        let mail = drawing.mails.wait::<MAIL_WORDS>(number as usize % MAILS);
        drawing.taken = number;
        let begun = drawing.begun.expect("a token was drawn");
        let [found, token, bad, value] =
            mail.map_err(|error| self.failed(Error::driver("sampling")(error)))?;
        assert_eq!(found, number, "mails come in order");
        if bad != ALL_FINITE {
            let value = f32::from_bits(value);
            return Err(StepError::NotFinite { row: 0, token: bad as usize, value });
        }
        if number != begun.first.1 {
            self.rows.sequences.complete(&[begun.row(number)]);
        }
        Ok(token)
    }
}
