//! Drawing tokens where the logits are.

use amoeba_kernels::sample::Sampling;

use crate::{Error, Row};

/// Draws tokens on the device for several sequences at once and feeds them into the next step, so that a
/// caller may ask for a step before it has seen the tokens that go into it.
///
/// Steps are taken in the order in which they were enqueued.
/// [`Executable::logits`](crate::Executable::logits) are void meanwhile, and any other step ends the run:
/// tokens that were not taken by then are lost.
pub trait DeviceSampler {
    /// Most sequences that a step may draw for.
    fn rows_max(&self) -> usize;

    /// Why tokens cannot be drawn like that; `None` if they can.
    fn refusal(&self, sampling: &Sampling) -> Option<String>;

    /// How tokens of the sequence in `slot` are drawn from now on, numbered from 1. `recent` is the whole
    /// sequence so far; the next token drawn comes after it. Steps under way must have been taken.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// The draw is one that [`DeviceSampler::refusal`] refuses.
    fn begin(&mut self, slot: usize, sampling: &Sampling, recent: &[u32]) -> Result<(), Error>;

    /// Runs rows as [`Executable::step`](crate::Executable::step) does and draws a token for each that asks
    /// for logits, one of every sequence at most; returns before that is done. Each of these sequences has
    /// begun, and its row here is the last that it has so far.
    ///
    /// # Errors
    /// As a step, or the device failed.
    ///
    /// # Panics
    /// No row asks for logits, or more than [`DeviceSampler::rows_max`].
    fn enqueue(&mut self, rows: &[Row]) -> Result<(), Error>;

    /// Runs the tokens that the step before draws, each as the next of its sequence, and draws those that
    /// follow; returns before that is done.
    ///
    /// # Errors
    /// No room in the context; the device failed; or, for a plan with recurrent caches, the tokens were not
    /// [taken](DeviceSampler::take) yet, and so may not be wanted.
    ///
    /// # Panics
    /// Nothing was enqueued, or too many steps were not taken.
    fn enqueue_next(&mut self) -> Result<(), Error>;

    /// Waits for the first step that was not taken. One result for each row that asked for logits, in order.
    /// A sequence whose logits are not finite must start anew; the others go on.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// Every step was taken.
    fn take(&mut self) -> Result<&[Drawn], Error>;
}

/// What a row of a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// The first logit that is NaN or infinite, with its token; what was drawn means nothing then.
    pub not_finite: Option<(usize, f32)>,
}

impl Drawn {
    /// The token of the `row`-th row that was drawn for.
    ///
    /// # Errors
    /// Its logits were not finite.
    pub fn checked(self, row: usize) -> Result<u32, Error> {
        match self.not_finite {
            None => Ok(self.token),
            Some((token, value)) => Err(Error::NotFinite { row, token, value }),
        }
    }
}
