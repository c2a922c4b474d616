//! What a step computes: a chunk of a prompt, then a token of every sequence that has read its own.

use std::time::Instant;

use amoeba_backend::{DeviceSampler, Error as BackendError, Executable, Row, check_finite};

use super::{Engine, Member};
use crate::Error;
use crate::session::Draws;

/// The sampler of a device that draws.
fn sampler(executable: &mut dyn Executable) -> &mut dyn DeviceSampler {
    executable.sampler().expect("it draws, as it did when the session was submitted")
}

impl Engine<'_> {
    /// Reads a chunk of the oldest prompt that was not read; how many tokens.
    pub(super) fn prefill(&mut self) -> Result<usize, Error> {
        let started = Instant::now();
        let unread = self.slots.iter().enumerate().filter_map(|(slot, session)| {
            let session = session.as_ref().filter(|session| session.generated().is_empty())?;
            Some((session.id(), slot))
        });
        let Some((id, slot)) = unread.min() else { return Ok(0) };
        let session = self.slots[slot].as_mut().expect("seen just now");
        let (tokens, cached) = (session.tokens(), &mut self.cached[slot]);
        let start = cached.tokens.len();
        let end = tokens.len().min(start + self.prefill_rows);
        let last = end == tokens.len();
        if end - start == self.prefill_rows && start == cached.whole {
            cached.whole = end;
        }
        self.rows.clear();
        let row = |i: usize| Row { token: tokens[i], slot, position: i, logits: i + 1 == tokens.len() };
        self.rows.extend((start..end).map(row));
        if session.stats.prompt_path.is_empty() {
            session.stats.prompt_path = self.executable.path(end - start).to_string();
        }
        self.members.clear();
        self.members.push((slot, id));
        if last && matches!(session.draws, Draws::Device) {
            // Its token is taken with those of the decode step.
            let begun = sampler(self.executable).begin(slot, session.sampling(), session.tokens());
            begun.map_err(|error| self.failed(error))?;
            self.enqueue()?;
            self.add_prefill(slot, started);
        } else {
            self.run()?;
            if last { self.draw(0, started) } else { self.add_prefill(slot, started) }
        }
        Ok(end - start)
    }

    fn add_prefill(&mut self, slot: usize, started: Instant) {
        if let Some(session) = &mut self.slots[slot] {
            session.stats.prefill += started.elapsed();
        }
    }

    /// Decodes a token of every running sequence. One whose prompt was read just now joins in the next step,
    /// when its first token is known not to end it.
    pub(super) fn decode(&mut self) -> Result<(), Error> {
        let running = self.slots.iter().flatten().count();
        for device in [true, false] {
            let mut batch = std::mem::take(&mut self.batch);
            batch.clear();
            batch.extend(self.slots.iter().enumerate().filter_map(|(slot, session)| {
                let session = session.as_ref().filter(|s| matches!(s.draws, Draws::Device) == device)?;
                let member = (slot, session.id());
                // The first token of a prompt that was read just now is under way on a device.
                let under_way = self.under_way > 0 && self.members.contains(&member);
                (under_way || session.is_spoken()).then_some(member)
            }));
            let drawn_max = self.executable.sampler().map_or(1, |sampler| sampler.rows_max());
            let most = if device { self.decode_rows.min(drawn_max) } else { self.decode_rows };
            let alone = batch.len() == running && running <= most;
            let done = batch.chunks(most).try_for_each(|part| {
                if device { self.decode_on_device(part, alone) } else { self.decode_on_host(part) }
            });
            self.batch = batch;
            done?;
        }
        Ok(())
    }

    /// Decodes with logits that come to the host.
    fn decode_on_host(&mut self, batch: &[Member]) -> Result<(), Error> {
        let started = Instant::now();
        self.gather(batch);
        self.run()?;
        (0..self.members.len()).for_each(|n| self.draw(n, started));
        Ok(())
    }

    /// Decodes with tokens that the device samples. If it works for nobody else, it runs on before its tokens
    /// are seen here, unless the model is recurrent: it could not go back when a token turns out to be the
    /// last.
    fn decode_on_device(&mut self, batch: &[Member], alone: bool) -> Result<(), Error> {
        let started = Instant::now();
        if self.members != batch {
            self.settle()?;
            self.speak();
            self.gather(batch);
            if self.members.is_empty() {
                return Ok(());
            }
            self.enqueue()?;
        }
        let goes_on = |(slot, _): &Member| self.slots[*slot].as_ref().is_some_and(|s| s.goes_on());
        let ahead = alone && !self.reuse.all_or_none && self.members.iter().all(goes_on);
        while self.under_way < 1 + usize::from(ahead) {
            let next = sampler(self.executable).enqueue_next();
            next.map_err(|error| self.failed(error))?;
            self.under_way += 1;
        }
        self.take(started)
    }

    /// Whether the device must stop going on by itself: sequences have come or gone.
    pub(super) fn company_changes(&self) -> bool {
        let running = self.slots.iter().flatten().count();
        let gone = self.members.iter().any(|&member| !self.is_there(member));
        gone || running != self.members.len() || (!self.waiting.is_empty() && running < self.slots.len())
    }

    fn is_there(&self, (slot, id): Member) -> bool {
        self.slots[slot].as_ref().is_some_and(|session| session.id() == id)
    }

    /// Takes all tokens that are under way.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        while self.under_way > 0 {
            self.take(started)?;
        }
        Ok(())
    }

    /// Makes members of those of a batch that have not ended, and a row of the last token of each.
    fn gather(&mut self, batch: &[Member]) {
        self.members.clear();
        self.rows.clear();
        for &(slot, id) in batch {
            let Some(session) = self.slots[slot].as_ref().filter(|session| session.id() == id) else {
                continue;
            };
            let (position, token) =
                (session.tokens().len() - 1, session.tokens()[session.tokens().len() - 1]);
            self.members.push((slot, id));
            self.rows.push(Row { token, slot, position, logits: true });
        }
    }

    /// Runs the rows, which are of the members. Those whose logits are not finite end.
    fn run(&mut self) -> Result<(), Error> {
        if let Err(error) = self.executable.step(&self.rows, None) {
            let wanted = self.rows.iter().filter(|row| row.logits).count();
            let mut alone = false;
            for n in 0..if matches!(error, BackendError::NotFinite { .. }) { wanted } else { 0 } {
                if let Err(error) = check_finite(self.executable.logits(n), n) {
                    self.spoil(self.members[n].0, error.into());
                    alone = true;
                }
            }
            if !alone {
                return Err(self.failed(error));
            }
        }
        for row in &self.rows {
            if self.slots[row.slot].is_some() {
                self.cached[row.slot].tokens.push(row.token);
            }
        }
        Ok(())
    }

    /// Puts the rows, which are of the members, on the device, and a draw for each member.
    fn enqueue(&mut self) -> Result<(), Error> {
        sampler(self.executable).enqueue(&self.rows).map_err(|error| self.failed(error))?;
        self.under_way = 1;
        Ok(())
    }

    /// Draws the token of the n-th member from the n-th logits.
    fn draw(&mut self, n: usize, started: Instant) {
        let member = self.members[n];
        if self.is_there(member) {
            let session = self.slots[member.0].as_mut().expect("seen just now");
            let token = session.draw(self.executable.logits(n));
            self.accept(member.0, token, started);
        }
    }

    /// Takes the tokens of the first step under way.
    fn take(&mut self, started: Instant) -> Result<(), Error> {
        self.under_way -= 1;
        let mut taken = std::mem::take(&mut self.taken);
        taken.clear();
        let drawn = sampler(self.executable).take().map(|drawn| taken.extend_from_slice(drawn));
        for (n, drawn) in taken.iter().enumerate() {
            // A sequence that has ended leaves tokens that nobody wants.
            let member = self.members[n];
            match drawn.checked(n) {
                _ if !self.is_there(member) => {}
                Ok(token) => self.accept(member.0, token, started),
                Err(error) => self.spoil(member.0, error.into()),
            }
        }
        self.taken = taken;
        drawn.map_err(|error| self.failed(error))
    }

    /// The next token of a session. All before it were run.
    fn accept(&mut self, slot: usize, token: u32, started: Instant) {
        let session = self.slots[slot].as_mut().expect("a session is there");
        let cached = &mut self.cached[slot].tokens;
        cached.extend_from_slice(&session.tokens()[cached.len()..]);
        if session.generated().is_empty() {
            session.stats.prefill += started.elapsed();
            session.stats.decode_path = self.executable.path(1).to_string();
        } else {
            session.stats.decode += started.elapsed();
        }
        session.push(token);
        self.drawn += 1;
    }

    /// A session fails alone; what its slot caches cannot be reused.
    fn spoil(&mut self, slot: usize, error: Error) {
        self.cached[slot].truncate(0);
        self.fail(slot, error);
    }

    /// The step of the members failed: what a recurrence had summed up is lost.
    fn failed(&mut self, error: BackendError) -> Error {
        let said = error.to_string();
        while let Some(member) = self.members.pop() {
            if self.reuse.all_or_none {
                self.cached[member.0].truncate(0);
            }
            if self.is_there(member) {
                self.fail(member.0, Error::StepFailed { said: said.clone() });
            }
        }
        self.under_way = 0;
        error.into()
    }
}
