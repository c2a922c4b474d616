//! `trace`: what every worker does during a decode token, where it waits, and whether that became worse.
//!
//! [`capture()`] records tokens of a model as a [`Trace`]; [`Trace::summary`] adds it up; [`Summary::grew`]
//! holds it against a stored one of the same kind ([`Summary::unlike`] says why it is not). [`chrome()`]
//! writes a file that Perfetto opens, [`picture()`] draws timelines above each other on one scale.

mod capture;
mod check;
mod chrome;
mod ops;
mod overhead;
mod picture;
mod summary;
mod text;

pub use capture::{CaptureOptions, capture, capture_on, load};
pub use check::{ATTEMPTS, Checked, Growth, IDLE_MARGIN, TOKENS_CHECK_MIN, check};
pub use chrome::chrome;
pub use ops::TracedOp;
pub(crate) use ops::{row_label, traced_ops, visible};
pub use overhead::{Overhead, overhead};
pub use picture::picture;
pub use summary::{FileKind, LaneTime, OpTime, Summary};

use amoeba_backend::{DeviceKind, Recording, Span};
use amoeba_plan::{Part, PathKind};
use serde::{Deserialize, Serialize};

use crate::bench::{Build, Host};

/// What was traced, where, and how.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Subject {
    /// Model as a person would call it.
    pub model: String,
    /// Hash of its configuration and of the headers of its files, as in `bench`.
    pub model_hash: String,
    /// What it ran on; a baseline does not say.
    #[serde(skip)]
    pub device_kind: DeviceKind,
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
    #[serde(rename = "kv_type")]
    pub kv: String,
    /// What activations are rounded to.
    pub activations: String,
    /// Positions cached before the first captured token.
    pub depth: usize,
    /// Tokens captured.
    pub tokens: usize,
    /// The program.
    #[serde(flatten)]
    pub build: Build,
    /// The machine.
    #[serde(flatten)]
    pub host: Host,
}

impl Subject {
    /// What a lane of its recordings is called.
    pub fn lane(&self, index: usize) -> String {
        self.device_kind.lane(index)
    }
}

/// One captured token.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its position in the sequence.
    pub position: usize,
    /// When its step began, in ns since the first one's beginning; rests in between are left out.
    pub at: u64,
    /// Phases (launches) divided among workers, each of which ends with a wait for its last item.
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

    /// The shortest token, the least disturbed by other work: what a picture should show.
    pub fn shortest(&self) -> Option<&Token> {
        self.tokens.iter().min_by_key(|token| token.recording.ns)
    }

    /// Part of the model a span serves most; `None` for work of no op.
    pub fn part(&self, span: &Span) -> Option<Part> {
        ops::main_op(&self.ops, span).map(|op| op.part)
    }
}
