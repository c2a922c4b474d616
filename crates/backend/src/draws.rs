//! Drawing tokens where the logits are.

use amoeba_kernels::sample::Sampling;

use crate::Error;

/// Draws tokens on the device and feeds each into the next step, so that a caller may ask for a step before it has seen the
/// token that goes into it. [`Executable::logits`](crate::Executable::logits) are void meanwhile; any other step ends it.
pub trait Draws {
    /// Why tokens cannot be drawn like that; `None` if they can.
    fn refusal(&self, sampling: &Sampling) -> Option<String>;

    /// Draws from the logits that the last step's first such row asked for. `recent` is everything so far of the sequence in
    /// `slot`: what is drawn comes behind it.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// The last step gave no logits, or the draw is one that [`Draws::refusal`] refuses.
    fn begin(&mut self, sampling: &Sampling, recent: &[u32], slot: usize) -> Result<(), Error>;

    /// Runs the token drawn last and draws the one behind it; returns before that is done.
    ///
    /// # Errors
    /// No room in the context; the device failed; or, for a plan with recurrent caches, the token was not
    /// [taken](Draws::token) yet, and so may not be wanted.
    ///
    /// # Panics
    /// Nothing was begun, or too many tokens were not taken.
    fn go_on(&mut self) -> Result<(), Error>;

    /// Waits for the first token that was drawn and not taken.
    ///
    /// # Errors
    /// The device failed, or the logits were not finite.
    ///
    /// # Panics
    /// There is none.
    fn token(&mut self) -> Result<u32, Error>;
}
