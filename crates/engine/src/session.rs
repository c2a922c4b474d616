//! `Session`: one running sequence. It knows its tokens, its text and when it ends, but nothing of what
//! computes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amoeba_kernels::sample::cpu::Sampler;
use amoeba_text::{Detokeniser, Piece, Splitter, StopMatcher, Tokenizer};

use crate::model::Prompt;
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
    /// The cancel flag, [`Engine::cancel`](crate::Engine::cancel) or an error.
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
    /// Time in decode steps and sampling; sequences that share a step each count all of it.
    pub decode: Duration,
    /// From submission to the first token.
    pub first_token: Duration,
    /// Path of the largest prefill chunk.
    pub prompt_path: String,
    /// Path of a decode step.
    pub decode_path: String,
    /// Where tokens are drawn: "device", "host", or "host" and why the device does not.
    pub sampling: String,
}

/// Names a session of an [`Engine`](crate::Engine). Later sessions have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

/// Where tokens are drawn.
pub(crate) enum Draws {
    /// From the logits, when they have come to the host.
    Host(Sampler),
    /// Where the logits are.
    Device,
}

/// One running sequence.
pub struct Session<'m> {
    id: SessionId,
    request: Request,
    /// Prompt and generated tokens.
    tokens: Vec<u32>,
    /// How many of them are text already, or prompt.
    read: usize,
    context: usize,
    tokenizer: &'m Tokenizer,
    detokeniser: Detokeniser<'m>,
    stops: StopMatcher,
    splitter: Splitter,
    finish: Option<Finish>,
    pub(crate) draws: Draws,
    pub(crate) stats: Stats,
    submitted: Instant,
}

impl<'m> Session<'m> {
    /// A sequence that begins with a prompt and may grow until `context` tokens were run.
    ///
    /// # Errors
    /// An empty or too long prompt, an empty stop string, or sampling numbers out of range.
    pub(crate) fn new(
        id: SessionId,
        tokenizer: &'m Tokenizer,
        prompt: &Prompt,
        request: &Request,
        context: usize,
    ) -> Result<Session<'m>, Error> {
        request.sampling.check()?;
        let prompt_tokens = prompt.tokens.len();
        if prompt_tokens == 0 {
            return Err(Error::EmptyPrompt);
        }
        if prompt_tokens >= context {
            return Err(Error::PromptTooLong { prompt: prompt_tokens, context });
        }
        // Reserved now, so that steps allocate nothing.
        let most = request.max_tokens.unwrap_or(context).saturating_add(prompt_tokens).min(context + 1);
        let mut tokens = Vec::with_capacity(most);
        tokens.extend_from_slice(&prompt.tokens);
        Ok(Session {
            id,
            request: request.clone(),
            tokens,
            read: prompt_tokens,
            context,
            tokenizer,
            detokeniser: tokenizer.detokeniser().keeping(&prompt.format.markers()),
            stops: StopMatcher::new(request.stop.clone())?,
            splitter: Splitter::new(&prompt.format),
            finish: None,
            draws: Draws::Device,
            stats: Stats { prompt_tokens, ..Stats::default() },
            submitted: Instant::now(),
        })
    }

    /// Its name.
    pub fn id(&self) -> SessionId {
        self.id
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
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.stats.prompt_tokens..]
    }

    /// Prompt and generated tokens.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How it samples.
    pub(crate) fn sampling(&self) -> &Sampling {
        &self.request.sampling
    }

    /// Whether it has generated tokens, and all of them are text: none has ended it.
    pub(crate) fn is_spoken(&self) -> bool {
        self.read == self.tokens.len() && !self.generated().is_empty()
    }

    /// Whether whoever asked for it has raised the flag.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.request.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// Whether a token is sure to follow the next one, as long as no text ends the answer.
    pub(crate) fn goes_on(&self) -> bool {
        let next = self.generated().len() + 1;
        self.tokens.len() < self.context && self.request.max_tokens.is_none_or(|most| next < most)
    }

    /// Draws the next token from its logits.
    pub(crate) fn draw(&mut self, logits: &[f32]) -> u32 {
        match &mut self.draws {
            Draws::Host(sampler) => sampler.sample(logits, &self.tokens),
            Draws::Device => unreachable!("the device draws"),
        }
    }

    /// The next token, of which [`Session::speak`] makes text. Allocates nothing.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
        self.stats.generated_tokens += 1;
        if self.stats.generated_tokens == 1 {
            self.stats.first_token = self.submitted.elapsed();
        }
    }

    /// Tells what the new tokens say, and finds out whether one of them ends the answer; what follows that
    /// one is dropped.
    ///
    /// # Errors
    /// The tokenizer refuses.
    pub(crate) fn speak(&mut self, say: &mut dyn FnMut(Piece)) -> Result<(), Error> {
        while self.finish.is_none() && self.read < self.tokens.len() {
            let token = self.tokens[self.read];
            self.read += 1;
            if !self.request.ignore_eos && self.tokenizer.eos_ids().contains(&token) {
                self.finish = Some(Finish::Eos);
                break;
            }
            let text = self.detokeniser.push(token)?;
            let shown = self.stops.push(&text);
            self.splitter.push(&shown.text).into_iter().for_each(&mut *say);
            let generated = self.read - self.stats.prompt_tokens;
            if shown.stopped {
                self.finish = Some(Finish::Stop);
            } else if self.request.max_tokens.is_some_and(|most| generated >= most) {
                self.finish = Some(Finish::Length);
            } else if self.read > self.context {
                self.finish = Some(Finish::ContextFull);
            }
        }
        if self.finish.is_some() {
            self.tokens.truncate(self.read);
            self.stats.generated_tokens = self.generated().len();
            self.say_rest(say)?;
        }
        Ok(())
    }

    /// Ends the answer where it is.
    ///
    /// # Errors
    /// The tokenizer refuses.
    pub(crate) fn end(&mut self, finish: Finish, say: &mut dyn FnMut(Piece)) -> Result<(), Error> {
        self.finish = Some(finish);
        self.say_rest(say)
    }

    /// Tells what was held back.
    fn say_rest(&mut self, say: &mut dyn FnMut(Piece)) -> Result<(), Error> {
        if self.finish != Some(Finish::Stop) {
            let text = self.detokeniser.finish()?;
            let shown = self.stops.push(&text);
            let held = self.stops.finish();
            self.splitter.push(&(shown.text + &held)).into_iter().for_each(&mut *say);
        }
        self.splitter.finish().into_iter().for_each(say);
        Ok(())
    }
}
