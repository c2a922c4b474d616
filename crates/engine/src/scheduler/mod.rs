//! `Engine`: sequences that share an executable. A step admits, reads a chunk of one prompt, and decodes one
//! token of every sequence that has read its own.
//!
//! A sequence's tokens do not depend on its company: see [`EngineOptions::batch_invariant`].

mod compute;

use std::collections::VecDeque;

use amoeba_backend::{Drawn, Executable, Row};
use amoeba_kernels::sample::cpu::Sampler;
use amoeba_text::{Piece, Tokenizer};

use crate::Error;
use crate::model::{Model, Prompt};
use crate::session::{Draws, Finish, Request, Session, SessionId};
use crate::slots::{Reuse, Slot, choose};

/// How an engine schedules. Slots and the most rows of a step were fixed when the model was loaded.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Sessions that may wait for a slot; [`Engine::submit`] refuses more.
    pub waiting_max: usize,
    /// Tokens of a prompt that a step reads at most, which bounds how long decoding sequences wait; `None`
    /// for the most rows of a step.
    pub prefill_rows: Option<usize>,
    /// Sequences decoded together at most; `None` for what the device's fused kernels take, or for all slots
    /// where that makes no difference to the bits.
    pub decode_rows: Option<usize>,
    /// Whether a sequence gets the same bits whatever runs at the same time and ran before. It always does on
    /// devices where all step sizes give the same bits (the CPU). On others decode steps then all run as
    /// steps of `decode_rows` rows, and a cached prefix is reused in whole chunks of `prefill_rows` only:
    /// slower for a sequence that is alone.
    pub batch_invariant: bool,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { waiting_max: 64, prefill_rows: None, decode_rows: None, batch_invariant: true }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of prompts that were read.
    pub prefilled: usize,
    /// Tokens that were generated.
    pub decoded: usize,
    /// Sessions that have a slot.
    pub running: usize,
    /// Sessions that wait for one.
    pub waiting: usize,
}

/// What became of a session.
pub enum Event<'m> {
    /// More of its text, or a call.
    Piece(Piece),
    /// It ended; its numbers and tokens.
    Finished(Box<Session<'m>>),
    /// It failed, others do not.
    Failed(Box<Session<'m>>, Error),
}

/// A sequence of the run of steps that the device continues by itself.
type Member = (usize, SessionId);

/// Runs the sessions of a model. What its slots cache stays with the model.
///
/// ```no_run
/// # fn main() -> Result<(), amoeba_engine::Error> {
/// use amoeba_engine::{Engine, EngineOptions, Event, LoadOptions, Model, Request};
/// let options = LoadOptions { slots: 8, ..LoadOptions::default() };
/// let mut model = Model::load("model".as_ref(), &options, &mut |_, _| {})?;
/// let prompt = model.raw_prompt("Once upon a time")?;
/// let mut engine = Engine::new(&mut model, &EngineOptions::default());
/// let story = engine.submit(&prompt, &Request::default())?;
/// while !engine.is_idle() {
///     engine.step()?;
///     while let Some((session, event)) = engine.next_event() {
///         if let (true, Event::Piece(piece)) = (session == story, event) {
///             println!("{piece:?}");
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Engine<'m> {
    executable: &'m mut dyn Executable,
    tokenizer: &'m Tokenizer,
    /// What each slot caches.
    cached: &'m mut [Slot],
    /// Who is in each slot.
    slots: Vec<Option<Box<Session<'m>>>>,
    waiting: VecDeque<Box<Session<'m>>>,
    waiting_max: usize,
    prefill_rows: usize,
    decode_rows: usize,
    reuse: Reuse,
    draining: bool,
    next_id: u64,
    clock: u64,
    events: VecDeque<(SessionId, Event<'m>)>,
    /// Sequences of what the executable ran last; where the device samples, it continues with these by
    /// itself.
    members: Vec<Member>,
    /// Steps of theirs whose tokens were not taken.
    under_way: usize,
    /// Tokens generated so far.
    drawn: u64,
    /// Rows of the step run last; they and these are kept between steps, which so allocate nothing.
    rows: Vec<Row>,
    batch: Vec<Member>,
    taken: Vec<Drawn>,
}

impl<'m> Engine<'m> {
    /// An engine without sessions.
    pub fn new(model: &'m mut Model, options: &EngineOptions) -> Engine<'m> {
        let Model { executable, tokenizer, cached, .. } = model;
        let limits = executable.limits();
        let (slots, rows) = (limits.slots, limits.rows);
        let fused = (1..=rows).take_while(|&n| executable.path(n).kind == executable.path(1).kind).count();
        let several = options.decode_rows.unwrap_or(fused).clamp(1, slots.min(rows));
        executable.set_rows_min(if options.batch_invariant { several } else { 1 });
        let alike = *executable.bit_identical_sizes(1).end();
        let prefill_rows = options.prefill_rows.unwrap_or(rows).clamp(1, rows);
        let invariant = options.batch_invariant && alike < rows;
        if invariant {
            // Who computed what is there is not known.
            cached.iter_mut().for_each(|slot| slot.whole = 0);
        }
        let all_or_none = executable.plan().recurrent();
        Engine {
            slots: (0..slots).map(|_| None).collect(),
            waiting: VecDeque::new(),
            waiting_max: options.waiting_max,
            prefill_rows,
            decode_rows: match options.decode_rows {
                None if alike >= rows => slots.min(rows),
                _ if invariant => several.min(alike),
                _ => several,
            },
            reuse: Reuse { all_or_none, chunk: invariant.then_some(prefill_rows) },
            draining: false,
            next_id: 0,
            clock: cached.iter().map(|slot| slot.used).max().unwrap_or(0),
            events: VecDeque::new(),
            members: Vec::with_capacity(slots),
            under_way: 0,
            drawn: 0,
            rows: Vec::with_capacity(rows),
            batch: Vec::with_capacity(slots),
            taken: Vec::with_capacity(slots),
            executable: &mut **executable,
            tokenizer,
            cached,
        }
    }

    /// Adds a session; it starts in the order of submission, as soon as a slot is free.
    ///
    /// # Errors
    /// An empty or too long prompt, sampling numbers out of range, too many sessions waiting, or an engine
    /// that is being [drained](Engine::drain).
    pub fn submit(&mut self, prompt: &Prompt, request: &Request) -> Result<SessionId, Error> {
        if self.draining {
            return Err(Error::Draining);
        }
        let free = self.slots.iter().filter(|slot| slot.is_none()).count();
        if self.waiting.len() >= free + self.waiting_max {
            return Err(Error::QueueFull { waiting: self.waiting.len() });
        }
        let id = SessionId(self.next_id);
        let context = self.executable.limits().context;
        let mut session = Box::new(Session::new(id, self.tokenizer, prompt, request, context)?);
        self.next_id += 1;
        let vocab = self.executable.plan().spec.vocab;
        let host = || Draws::Host(Sampler::new(request.sampling, vocab));
        let sampler = self.executable.sampler();
        (session.draws, session.stats.sampling) = match sampler.map(|s| s.refusal(&request.sampling)) {
            None => (host(), "host".to_owned()),
            Some(Some(why)) => (host(), format!("host ({why})")),
            Some(None) => (Draws::Device, "device".to_owned()),
        };
        if request.max_tokens == Some(0) {
            self.finish(session, Finish::Length);
        } else {
            self.waiting.push_back(session);
        }
        Ok(id)
    }

    /// Ends a session, at whatever stage it is; its next event tells. Nothing happens if it has ended.
    pub fn cancel(&mut self, id: SessionId) {
        self.speak();
        if let Some(at) = self.waiting.iter().position(|session| session.id() == id) {
            let session = self.waiting.remove(at).expect("found just now");
            self.finish(session, Finish::Cancelled);
        } else if let Some(slot) = self.slot_of(id) {
            self.leave(slot, Finish::Cancelled);
        }
    }

    /// Takes no more sessions; those that are there run to their ends.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether no session is left; its last events may still be.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(Option::is_none)
    }

    /// A session that has not ended.
    pub fn session(&self, id: SessionId) -> Option<&Session<'m>> {
        let mut all = self.waiting.iter().chain(self.slots.iter().flatten());
        all.find(|session| session.id() == id).map(|session| &**session)
    }

    /// The next event, oldest first. Text is made here, of the tokens that steps left, while a device may be
    /// busy with the next step.
    pub fn next_event(&mut self) -> Option<(SessionId, Event<'m>)> {
        if self.events.is_empty() {
            self.speak();
        }
        self.events.pop_front()
    }

    /// Admits sessions to free slots, reads a chunk of the oldest prompt that was not read, and decodes a
    /// token of all others (a second, where sequences that the device was ahead with change company).
    /// Allocates nothing while company stays the same and events were taken.
    ///
    /// # Errors
    /// A step failed as a whole, and so did the sessions that had part in it. Sessions that fail alone are
    /// [events](Event::Failed).
    pub fn step(&mut self) -> Result<Progress, Error> {
        let drawn = self.drawn;
        self.speak();
        self.cancel_asked();
        if self.under_way > 0 && self.company_changes() {
            self.settle()?;
            self.speak();
        }
        self.admit();
        let prefilled = self.prefill()?;
        self.decode()?;
        let decoded = (self.drawn - drawn) as usize;
        let running = self.slots.iter().flatten().count();
        Ok(Progress { prefilled, decoded, running, waiting: self.waiting.len() })
    }

    /// Ends sessions whose flag was raised.
    fn cancel_asked(&mut self) {
        while let Some(at) = self.waiting.iter().position(|session| session.is_cancelled()) {
            let session = self.waiting.remove(at).expect("found just now");
            self.finish(session, Finish::Cancelled);
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(|session| session.is_cancelled()) {
                self.leave(slot, Finish::Cancelled);
            }
        }
    }

    /// Gives free slots to those who wait.
    fn admit(&mut self) {
        while let Some(session) = self.waiting.front() {
            let slots = &self.slots;
            let free = (0..slots.len()).filter(|slot| slots[*slot].is_none());
            let Some(slot) = choose(self.cached, free, session.tokens(), self.reuse) else { return };
            let mut session = self.waiting.pop_front().expect("seen just now");
            let cached = &mut self.cached[slot];
            session.stats.reused_tokens = cached.reusable(session.tokens(), self.reuse);
            cached.truncate(session.stats.reused_tokens);
            let room = self.executable.limits().context;
            cached.tokens.reserve_exact(room - cached.tokens.len());
            self.slots[slot] = Some(session);
        }
    }

    /// Makes text of new tokens; sessions whose text says so end.
    fn speak(&mut self) {
        for slot in 0..self.slots.len() {
            let Some(session) = &mut self.slots[slot] else { continue };
            let (id, events) = (session.id(), &mut self.events);
            let said = session.speak(&mut |piece| events.push_back((id, Event::Piece(piece))));
            let ended = session.finish().is_some();
            match said {
                Err(error) => self.fail(slot, error),
                Ok(()) if ended => {
                    let session = self.vacate(slot);
                    self.events.push_back((id, Event::Finished(session)));
                }
                Ok(()) => {}
            }
        }
    }

    /// Ends a session that has no slot.
    fn finish(&mut self, mut session: Box<Session<'m>>, finish: Finish) {
        let (id, events) = (session.id(), &mut self.events);
        let event = match session.end(finish, &mut |piece| events.push_back((id, Event::Piece(piece)))) {
            Ok(()) => Event::Finished(session),
            Err(error) => Event::Failed(session, error),
        };
        self.events.push_back((id, event));
    }

    /// Ends the session of a slot.
    fn leave(&mut self, slot: usize, finish: Finish) {
        let session = self.vacate(slot);
        self.finish(session, finish);
    }

    /// Ends the session of a slot with an error.
    fn fail(&mut self, slot: usize, error: Error) {
        let session = self.vacate(slot);
        self.events.push_back((session.id(), Event::Failed(session, error)));
    }

    /// Takes the session out of a slot; what the slot caches stays.
    fn vacate(&mut self, slot: usize) -> Box<Session<'m>> {
        self.clock += 1;
        self.cached[slot].used = self.clock;
        self.slots[slot].take().expect("a session is there")
    }

    fn slot_of(&self, id: SessionId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|session| session.id() == id))
    }
}
