//! `Generation`: one sequence as an iterator of its text.

use amoeba_text::Piece;

use crate::Error;
use crate::model::{Model, Prompt};
use crate::scheduler::{Engine, EngineOptions, Event};
use crate::session::{Finish, Request, Session, SessionId, Stats};

impl Model {
    /// Continues a prompt. What it shares with the last one is not computed again; a model with recurrent
    /// layers, which cannot go back, computes all of it unless it begins with everything that was read and
    /// written before.
    ///
    /// # Errors
    /// An empty or too long prompt, or sampling numbers out of range.
    pub fn generate<'m>(&'m mut self, prompt: &Prompt, request: &Request) -> Result<Generation<'m>, Error> {
        // Nobody shares the steps, so the fastest will do.
        let options = EngineOptions { batch_invariant: false, ..EngineOptions::default() };
        let mut engine = Engine::new(self, &options);
        let id = engine.submit(prompt, request)?;
        Ok(Generation { engine, id, ended: None, failed: false })
    }
}

/// A running generation; yields text as it becomes certain, and calls when they are complete.
pub struct Generation<'m> {
    engine: Engine<'m>,
    id: SessionId,
    ended: Option<Box<Session<'m>>>,
    failed: bool,
}

impl<'m> Generation<'m> {
    fn session(&self) -> &Session<'m> {
        let ended = self.ended.as_deref();
        ended.or_else(|| self.engine.session(self.id)).expect("a session that has ended is kept")
    }

    /// Numbers so far.
    pub fn stats(&self) -> &Stats {
        self.session().stats()
    }

    /// Why it ended; `None` while it runs.
    pub fn finish(&self) -> Option<Finish> {
        if self.failed { Some(Finish::Cancelled) } else { self.session().finish() }
    }

    /// Generated tokens so far.
    pub fn tokens(&self) -> &[u32] {
        self.session().generated()
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.engine.next_event() {
                Some((_, Event::Piece(piece))) => return Some(Ok(piece)),
                Some((_, Event::Finished(session))) => self.ended = Some(session),
                Some((_, Event::Failed(session, error))) => {
                    self.ended = Some(session);
                    // The step's own error was reported already.
                    if !std::mem::replace(&mut self.failed, true) {
                        return Some(Err(error));
                    }
                }
                None if self.ended.is_some() => return None,
                None => {
                    if let Err(error) = self.engine.step() {
                        self.failed = true;
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
