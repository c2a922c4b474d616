//! `trace`: what every worker does during a decode token, where it waits, and whether that became worse.
//!
//! [`capture()`] records tokens of a model as a [`Trace`]; [`Trace::summary`] adds it up; [`Summary::grew`] holds it
//! against a stored one of the same kind ([`Summary::unlike`] says why it is not). [`Trace::chrome`] writes a file
//! that Perfetto opens, [`picture()`] draws timelines above each other on one scale.

mod capture;
mod check;
mod ops;
mod summary;

pub use capture::{CaptureOptions, TOKENS_CHECK_MIN, capture, capture_on};
pub use check::{Growth, IDLE_MARGIN};
pub use ops::TracedOp;
pub(crate) use ops::traced_ops;
pub use summary::{LaneTime, OpTime, Summary};

use amoeba_backend::Recording;
use amoeba_plan::{Part, PathKind};

use crate::bench::{Build, Host};

/// What was traced, where, and how.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Model as a person would call it.
    pub model: String,
    /// Hash of its configuration and of the headers of its files, as in `bench`.
    pub model_hash: String,
    /// Device by name.
    pub device: String,
    /// Device, instruction set, workers.
    pub device_detail: String,
    /// Workers.
    pub workers: usize,
    /// Path through the experts.
    pub path: String,
    /// The path and why it was taken.
    pub path_reason: String,
    /// What keys and values are kept as.
    pub kv: String,
    /// Positions cached before the first captured token.
    pub depth: usize,
    /// The program.
    pub build: Build,
    /// The machine.
    pub host: Host,
}

/// One captured token.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its position in the sequence.
    pub position: usize,
    /// When its step began, in ns since the first one's beginning.
    pub at: u64,
    /// Phases (launches) that were shared out among workers, each of which ends with a wait for its last item.
    pub phases: u32,
    /// What the workers did.
    pub recording: Recording,
}

/// Captured tokens.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What was traced.
    pub subject: Subject,
    /// The decode program, op by op.
    pub ops: Vec<TracedOp>,
    /// The tokens, in order.
    pub tokens: Vec<Token>,
}

impl Trace {
    /// Whether the path asked for was taken.
    pub fn is(&self, path: PathKind) -> bool {
        self.subject.path == path.to_string()
    }

    /// The token of middle duration: what a single picture should show. 0 if there is none.
    pub fn middle_token(&self) -> usize {
        let mut order: Vec<usize> = (0..self.tokens.len()).collect();
        order.sort_by_key(|&token| self.tokens[token].recording.ns);
        order.get(order.len() / 2).copied().unwrap_or(0)
    }

    /// Part of the model an op serves; `None` for work of no single op.
    pub fn part(&self, op: Option<u32>) -> Option<Part> {
        op.map(|op| self.ops[op as usize].part)
    }
}
