//! Text in, tokens out, and back: tokenizers, chat templates, stop strings, thoughts and
//! tool calls.
//!
//! Invariants:
//! * Pure: no network, no device; files are read only in the two `open` functions, and
//!   the time zone where a template asks for the date. The one use of threads is
//!   the deep stack that a template runs on, which a caller can leave ([`Chat::stop`]).
//! * Hostile templates end here: source, steps, nesting and output are bounded ([`limits`]); see `jinja/`.
//! * Text that a caller supplies never becomes a control token in [`ChatTemplate::encode`]; see `guard.rs`.
//! * What a model writes is read with bounds on size, count and nesting; see `tools/`.
//! * Streamed text equals decoded text: [`Detokeniser`] pushes plus `finish` give `decode(ids, true)`.
//!
//! Start reading at `tokenizer.rs` (ids) and `template.rs` (prompts).

mod chat;
mod checks;
mod clock;
mod detokenise;
mod error;
mod files;
mod guard;
mod jinja;
pub mod limits;
mod model;
mod sources;
mod stop;
mod template;
mod tokenizer;
mod tools;
mod zone;

pub use chat::{Chat, Message, Stop};
pub use detokenise::Detokeniser;
pub use error::Error;
pub use sources::has_tokenizer;
pub use stop::{StopMatcher, StopResult};
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
pub use tools::{
    DIALECTS, Dialect, Format, Piece, Splitter, ToolCall, Tools, reasoning_markers, recognise, starts_inside,
};
