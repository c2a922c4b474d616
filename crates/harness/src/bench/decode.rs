//! Decode as `run` does it: where the device draws tokens, each step takes the token that the one before drew, and is sent off
//! before the host has seen that token. Elsewhere a step has its token from the bench and brings its logits to the host.

use amoeba_backend::Executable;
use amoeba_engine::Sampling as Draw;

use super::row::{Kind, Test};
use crate::Error;

/// Who draws the tokens of a decode test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// The device, the likeliest.
    Device {
        /// Whether steps are sent off before the host has seen their token.
        ahead: bool,
    },
    /// Nobody: the logits of every token come to the host, and the next token is known before.
    Host {
        /// Whether the device draws, but not in steps of several sequences.
        batch: bool,
    },
}

impl Sampling {
    /// How a test's tokens come about; `None` for prefill.
    pub(super) fn of(executable: &mut dyn Executable, test: Test) -> Option<Sampling> {
        let ahead = !executable.plan().recurrent();
        let draws = executable.draws().is_some_and(|draws| draws.refusal(&Draw::greedy()).is_none());
        (test.kind == Kind::Decode).then_some(match test.batch {
            1 if draws => Sampling::Device { ahead },
            _ => Sampling::Host { batch: draws },
        })
    }

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Sampling::Device { .. } => "device",
            Sampling::Host { .. } => "host",
        }
    }

    /// What a reader of the table must know; nothing on a device that does not draw.
    pub(super) fn note(self) -> Option<&'static str> {
        match self {
            Sampling::Device { ahead: true } => {
                Some("the device draws (greedy) and runs one step ahead of the host, as in `run`")
            }
            Sampling::Device { ahead: false } => {
                Some("the device draws (greedy) and waits for the host before the next step, as in `run`")
            }
            Sampling::Host { batch: true } => {
                Some("logits of every token come to the host: the device draws for one sequence at a time")
            }
            Sampling::Host { batch: false } => None,
        }
    }
}

/// Draws the first token behind those that the last step ended with; off the clock, so that nothing is under way when it starts.
pub(super) fn begin(executable: &mut dyn Executable, recent: &[u32]) -> Result<(), Error> {
    let draws = executable.draws().expect("it draws, as it said");
    draws.begin(&Draw::greedy(), recent, 0)?;
    draws.token()?;
    Ok(())
}

/// So many steps, each with the draw of another token, until the last has come.
pub(super) fn draw(executable: &mut dyn Executable, steps: usize, ahead: bool) -> Result<(), Error> {
    let draws = executable.draws().expect("it draws, as it said");
    let first = usize::from(ahead).min(steps);
    (0..first).try_for_each(|_| draws.go_on())?;
    for step in 0..steps {
        if step + first < steps {
            draws.go_on()?;
        }
        draws.token()?;
    }
    Ok(())
}
