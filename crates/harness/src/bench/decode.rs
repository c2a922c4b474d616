//! Decode as `run` does it: where the device draws tokens, each step takes the token that the one before
//! drew, and is sent off before the host has seen that token. Elsewhere a step has its token from the bench
//! and brings its logits to the host.

use amoeba_backend::{Executable, Row};
use amoeba_engine::Sampling as Draw;

use super::subject::{Kind, Test};
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
        /// Whether the device draws, but for fewer sequences.
        batch: bool,
    },
}

impl Sampling {
    /// How a test's tokens come about; `None` for prefill.
    pub(super) fn of(executable: &mut dyn Executable, test: Test) -> Option<Sampling> {
        let ahead = !executable.plan().recurrent();
        let sampler = executable.sampler().filter(|sampler| sampler.refusal(&Draw::greedy()).is_none());
        let most = sampler.map_or(0, |sampler| sampler.rows_max());
        (test.kind == Kind::Decode).then_some(match test.batch {
            batch if batch <= most => Sampling::Device { ahead },
            _ => Sampling::Host { batch: most > 0 },
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
                Some("logits of every token come to the host: the device draws for fewer sequences at a time")
            }
            Sampling::Host { batch: false } => None,
        }
    }
}

/// Runs what is cached before and draws the first token of every sequence after it; off the clock, so that
/// nothing is under way when it starts.
pub(super) fn begin(executable: &mut dyn Executable, before: &[Vec<Row>]) -> Result<(), Error> {
    // The last row of every sequence wants logits; these make the step that draws.
    for rows in before {
        let rows: Vec<Row> = rows.iter().copied().filter(|row| !row.logits).collect();
        if !rows.is_empty() {
            executable.step(&rows, None)?;
        }
    }
    let last: Vec<Row> = before.iter().flatten().copied().filter(|row| row.logits).collect();
    let sampler = executable.sampler().expect("it draws, as it said");
    for row in &last {
        // Greedy draws look at no earlier token, only at how many there are.
        sampler.begin(row.slot, &Draw::greedy(), &vec![row.token; row.position + 1])?;
    }
    sampler.enqueue(&last)?;
    sampler.take()?;
    Ok(())
}

/// Runs `steps` steps, each of which draws another token for every sequence, until the last has come.
pub(super) fn draw(executable: &mut dyn Executable, steps: usize, ahead: bool) -> Result<(), Error> {
    let sampler = executable.sampler().expect("it draws, as it said");
    let first = usize::from(ahead).min(steps);
    (0..first).try_for_each(|_| sampler.enqueue_next())?;
    for step in 0..steps {
        if step + first < steps {
            sampler.enqueue_next()?;
        }
        for (row, drawn) in sampler.take()?.iter().enumerate() {
            drawn.checked(row)?;
        }
    }
    Ok(())
}
