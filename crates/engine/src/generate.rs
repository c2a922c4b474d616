//! Generation: prefill in chunks, then one token at a time, as an iterator of text.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amoeba_backend::{Executable, Row};
use amoeba_kernels::sample::cpu::Sampler;
use amoeba_text::{Detokeniser, Piece, Splitter, StopMatcher, Tokenizer};

use crate::model::{Model, Prompt};
use crate::{Error, Sampling};

/// What to generate.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// How to sample.
    pub sampling: Sampling,
    /// Most tokens; `None` until the end of the answer or of the context.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Go on past the end-of-sequence token.
    pub ignore_eos: bool,
    /// Checked before every step.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its answer.
    Eos,
    /// A stop string.
    Stop,
    /// `max_tokens`.
    Length,
    /// No room left in the context.
    ContextFull,
    /// The cancel flag.
    Cancelled,
}

/// What a generation did and how long it took.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens that were already cached and not computed again.
    pub reused_tokens: usize,
    /// Tokens generated, an end-of-sequence token included.
    pub generated_tokens: usize,
    /// Time in prefill.
    pub prefill: Duration,
    /// Time in decode steps and sampling.
    pub decode: Duration,
    /// From the start to the first token.
    pub first_token: Duration,
    /// Path of the largest prefill chunk.
    pub prompt_path: String,
    /// Path of a decode step.
    pub decode_path: String,
    /// Where tokens are drawn: "device", "host", or "host" and why the device does not.
    pub sampling: String,
}

/// Where tokens are drawn.
enum Drawing {
    /// From the logits, when they have come.
    Host(Sampler),
    /// Where the logits are. Steps go on from a token before it is seen here, unless the model is recurrent: it could not go
    /// back when the token turns out to be the last.
    Device {
        /// Whether steps go on before.
        ahead: bool,
        /// Tokens drawn, or being drawn, that were not taken.
        under_way: usize,
    },
}

impl Drawing {
    /// Where an executable draws like that, in words too.
    fn of(executable: &mut dyn Executable, sampling: Sampling) -> (Drawing, String) {
        let (vocab, ahead) = (executable.plan().spec.vocab, !executable.plan().recurrent());
        let host = || Drawing::Host(Sampler::new(sampling, vocab));
        match executable.draws().map(|draws| draws.refusal(&sampling)) {
            None => (host(), "host".to_owned()),
            Some(Some(why)) => (host(), format!("host ({why})")),
            Some(None) => (Drawing::Device { ahead, under_way: 0 }, "device".to_owned()),
        }
    }
}

/// A running generation; yields text as it becomes certain, and calls when they are complete.
pub struct Generation<'m> {
    executable: &'m mut dyn Executable,
    cached: &'m mut Vec<u32>,
    tokenizer: &'m Tokenizer,
    detokeniser: Detokeniser<'m>,
    stops: StopMatcher,
    splitter: Splitter,
    drawing: Drawing,
    request: Request,
    /// Prompt and generated tokens.
    tokens: Vec<u32>,
    prompt_len: usize,
    ready: VecDeque<Piece>,
    finish: Option<Finish>,
    stats: Stats,
    started: Instant,
}

impl<'m> Generation<'m> {
    pub(crate) fn start(
        model: &'m mut Model,
        prompt: &Prompt,
        request: &Request,
    ) -> Result<Generation<'m>, Error> {
        request.sampling.check()?;
        let context = model.executable.limits().context;
        if prompt.tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if prompt.tokens.len() >= context {
            return Err(Error::PromptTooLong { prompt: prompt.tokens.len(), context });
        }
        let Model { executable, tokenizer, cached, .. } = model;
        let shared = reusable(cached, &prompt.tokens, executable.plan().recurrent());
        cached.truncate(shared);
        let mut tokens = Vec::with_capacity(context + 1);
        tokens.extend_from_slice(&prompt.tokens);
        let (drawing, sampling) = Drawing::of(&mut **executable, request.sampling);
        let prompt_tokens = prompt.tokens.len();
        let stats = Stats { prompt_tokens, reused_tokens: shared, sampling, ..Stats::default() };
        let started = Instant::now();
        Ok(Generation {
            detokeniser: tokenizer.detokeniser().keeping(&prompt.format.markers()),
            splitter: Splitter::new(&prompt.format),
            stops: StopMatcher::new(request.stop.clone())?,
            drawing,
            prompt_len: prompt.tokens.len(),
            executable: &mut **executable,
            request: request.clone(),
            ready: VecDeque::new(),
            finish: None,
            tokenizer,
            cached,
            tokens,
            stats,
            started,
        })
    }

    /// Numbers so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Why it ended; `None` while it runs.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Generated tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// Computes everything that is not cached, in chunks; logits of the last token only.
    fn prefill(&mut self) -> Result<(), Error> {
        let chunk = self.executable.limits().rows;
        while self.cached.len() < self.tokens.len() {
            if self.cancelled() {
                self.finish = Some(Finish::Cancelled);
                return Ok(());
            }
            let (start, end) = (self.cached.len(), self.tokens.len().min(self.cached.len() + chunk));
            let row = |i: usize| Row {
                token: self.tokens[i],
                slot: 0,
                position: i,
                logits: i + 1 == self.tokens.len(),
            };
            let rows: Vec<Row> = (start..end).map(row).collect();
            if self.stats.prompt_path.is_empty() {
                self.stats.prompt_path = self.executable.path(rows.len()).to_string();
            }
            self.compute(&rows)?;
        }
        Ok(())
    }

    /// One more token: compute, sample, turn into text.
    fn advance(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let first = self.stats.generated_tokens == 0;
        if first {
            self.prefill()?;
            self.stats.prefill = started.elapsed();
            self.stats.decode_path = self.executable.path(1).to_string();
        } else if self.cancelled() {
            self.finish = Some(Finish::Cancelled);
        }
        if self.finish.is_some() {
            return self.flush();
        }
        let token = self.next_token(first)?;
        self.tokens.push(token);
        self.stats.generated_tokens += 1;
        if first {
            self.stats.first_token = self.started.elapsed();
        } else {
            self.stats.decode += started.elapsed();
        }
        if !self.request.ignore_eos && self.tokenizer.eos_ids().contains(&token) {
            self.finish = Some(Finish::Eos);
            return self.flush();
        }
        let text = self.detokeniser.push(token)?;
        let shown = self.stops.push(&text);
        self.ready.extend(self.splitter.push(&shown.text));
        if shown.stopped {
            self.finish = Some(Finish::Stop);
        } else if self.request.max_tokens.is_some_and(|most| self.stats.generated_tokens >= most) {
            self.finish = Some(Finish::Length);
        } else if self.tokens.len() > self.executable.limits().context {
            self.finish = Some(Finish::ContextFull);
        }
        if self.finish.is_some() { self.flush() } else { Ok(()) }
    }

    /// The token behind the last, which has been run only if it is of the prompt.
    fn next_token(&mut self, first: bool) -> Result<u32, Error> {
        if matches!(self.drawing, Drawing::Device { .. }) {
            let taken = self.take(first);
            return taken.map_err(|error| self.failed(error));
        }
        if !first {
            let position = self.tokens.len() - 1;
            self.compute(&[Row { token: self.tokens[position], slot: 0, position, logits: true }])?;
        }
        let Drawing::Host(sampler) = &mut self.drawing else { unreachable!("seen above") };
        Ok(sampler.sample(self.executable.logits(0), &self.tokens))
    }

    /// Takes the token that the device draws. What the device has run by then is what was cached and the last token, perhaps
    /// also the one taken; that counts as cached when the one behind it is taken.
    fn take(&mut self, first: bool) -> Result<u32, amoeba_backend::Error> {
        let context = self.executable.limits().context;
        let last = self.request.max_tokens.is_some_and(|most| self.stats.generated_tokens + 1 >= most);
        let Drawing::Device { ahead, under_way } = &mut self.drawing else { unreachable!("the host draws") };
        let draws = self.executable.draws().expect("it draws, as it did at the start");
        if first {
            draws.begin(&self.request.sampling, &self.tokens, 0)?;
            *under_way = 1;
        }
        let wanted = if *ahead && !last && self.tokens.len() < context { 2 } else { 1 };
        while *under_way < wanted {
            draws.go_on()?;
            *under_way += 1;
        }
        *under_way -= 1;
        let token = draws.token()?;
        if !first {
            self.cached.extend(self.tokens.last());
        }
        Ok(token)
    }

    /// Runs tokens that follow what is cached.
    fn compute(&mut self, rows: &[Row]) -> Result<(), Error> {
        let done = self.executable.step(rows, None);
        done.map_err(|error| self.failed(error))?;
        self.cached.extend(rows.iter().map(|row| row.token));
        Ok(())
    }

    /// A step failed: what a recurrence had summed up is lost.
    fn failed(&mut self, error: amoeba_backend::Error) -> Error {
        if self.executable.plan().recurrent() {
            self.cached.clear();
        }
        error.into()
    }

    fn cancelled(&self) -> bool {
        self.request.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// Hands out what was held back.
    fn flush(&mut self) -> Result<(), Error> {
        if self.finish != Some(Finish::Stop) {
            let text = self.detokeniser.finish()?;
            let shown = self.stops.push(&text);
            let held = self.stops.finish();
            self.ready.extend(self.splitter.push(&(shown.text + &held)));
        }
        self.ready.extend(self.splitter.finish());
        Ok(())
    }
}

/// How many of the cached tokens a prompt can start from: those it begins with, but for its last one, whose logits are what
/// generation starts from. A recurrence has summed them up and cannot go back: it is all of them or none.
fn reusable(cached: &[u32], prompt: &[u32], recurrent: bool) -> usize {
    let shared = cached.iter().zip(&prompt[..prompt.len() - 1]).take_while(|(a, b)| a == b).count();
    if recurrent && shared < cached.len() { 0 } else { shared }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            if self.finish.is_some() || self.request.max_tokens == Some(0) {
                self.finish.get_or_insert(Finish::Length);
                return None;
            }
            if let Err(error) = self.advance() {
                self.finish = Some(Finish::Cancelled);
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
