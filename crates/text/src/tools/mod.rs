//! What models write in addition to their answer: thoughts and tool calls, and how each family spells them.
//!
//! * `table.rs`: the dialects, one row each, and how a row is recognised;
//! * `splitter.rs`: streamed text to [`Piece`]s;
//! * `unmarked.rs`: calls and thoughts whose opening marker was left out;
//! * `body.rs`, `tags.rs`, `loose.rs`: one call's text to name and arguments;
//! * `schema.rs`: the tools of a chat, and what types they give to arguments that a dialect leaves untyped.
//!
//! A model's output is as untrusted as a file: every buffer, count and nesting is bounded
//! ([`crate::limits`]), time is linear in the text, and what is not understood is part of the answer, as it
//! was written.

mod body;
mod loose;
mod schema;
mod splitter;
mod table;
mod tags;
mod unmarked;

pub use schema::Tools;
pub use splitter::Splitter;
pub use table::{DIALECTS, Dialect, reasoning_markers, recognise};

use crate::{Chat, ChatTemplate, Tokenizer};

/// A piece of streamed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text for the user.
    Answer(String),
    /// What the model says to itself; the tags are not part of it.
    Thought(String),
    /// A function the model wants called.
    Call(ToolCall),
}

/// A function the model wants called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Which call of this answer it is, from 0.
    pub index: usize,
    /// The model's own name for the call, where its dialect has one.
    pub id: Option<String>,
    /// The function. It need not be one of the chat's tools.
    pub name: String,
    /// A JSON object, without line breaks.
    pub arguments: String,
}

impl ToolCall {
    /// The model's own name for the call, or one of nine letters and digits, as some templates want it.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| format!("call{:05}", self.index))
    }
}

/// How to read what a model writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Format {
    /// Opening and closing tag of thoughts.
    pub reasoning: Option<(String, String)>,
    /// The prompt already opened a thought.
    pub starts_inside: bool,
    /// How tool calls are spelled; `None` when there are none to expect.
    pub dialect: Option<&'static Dialect>,
    /// The tools that the prompt offers to the model.
    pub tools: Tools,
}

impl Format {
    /// Thoughts between two tags, no calls.
    pub fn thoughts(open: &str, close: &str, starts_inside: bool) -> Format {
        Format { reasoning: Some((open.into(), close.into())), starts_inside, ..Format::default() }
    }

    /// The format of the answer to a chat. `tail` is the end of the rendered prompt, special tokens included.
    pub fn of(template: &ChatTemplate, tokenizer: &Tokenizer, chat: &Chat, tail: &str) -> Format {
        let reasoning = reasoning_markers(template.source(), tokenizer);
        let starts_inside = chat.add_generation_prompt
            && reasoning.as_ref().is_some_and(|(open, _)| starts_inside(tail, open));
        let tools = Tools::of(chat);
        let dialect = template.dialect(tokenizer).filter(|dialect| dialect.always || !tools.is_empty());
        Format { reasoning, starts_inside, dialect, tools }
    }

    /// Strings that the reader of this format must get to see, special tokens or not.
    pub fn markers(&self) -> Vec<&str> {
        let mut markers: Vec<&str> = self.dialect.into_iter().flat_map(Dialect::markers).collect();
        markers.extend(self.reasoning.iter().flat_map(|(open, close)| [open.as_str(), close.as_str()]));
        markers
    }
}

/// Whether a rendered prompt ends with the opening tag, so that the model starts inside a thought.
pub fn starts_inside(prompt: &str, open: &str) -> bool {
    !open.is_empty() && prompt.trim_end().ends_with(open.trim_end())
}
