//! Splitting streamed text into thoughts and answer by tags such as `<think>` and `</think>`.

use crate::Tokenizer;
use crate::stop::begun;

/// A stretch of streamed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// What the user is told.
    Answer(String),
    /// What the model says to itself; the tags are not part of it.
    Thought(String),
}

/// Splits streamed text; the tags may be spread over several pushes.
#[derive(Debug, Clone)]
pub struct ReasoningSplitter {
    open: String,
    close: String,
    inside: bool,
    held: String,
}

impl ReasoningSplitter {
    /// A splitter for two tags, neither empty (an empty one never matches). `starts_inside` when the prompt
    /// already opened a thought; see [`starts_inside`].
    pub fn new(open: &str, close: &str, starts_inside: bool) -> ReasoningSplitter {
        ReasoningSplitter {
            open: open.into(),
            close: close.into(),
            inside: starts_inside,
            held: String::new(),
        }
    }

    /// Whether the text so far ends inside a thought.
    pub fn inside(&self) -> bool {
        self.inside
    }

    /// Takes the next text and returns what is certain, without empty pieces.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        loop {
            let tag = if self.inside { &self.close } else { &self.open };
            let found = if tag.is_empty() { None } else { self.held.find(tag.as_str()) };
            let end = found.unwrap_or_else(|| self.held.len() - begun(&self.held, tag));
            let skip = if found.is_some() { tag.len() } else { 0 };
            let rest = self.held.split_off(end + skip);
            self.held.truncate(end);
            pieces.extend(self.take());
            self.held = rest;
            if found.is_none() {
                return pieces;
            }
            self.inside = !self.inside;
        }
    }

    /// Ends the text: what was held back after all.
    pub fn finish(&mut self) -> Vec<Piece> {
        self.take().into_iter().collect()
    }

    fn take(&mut self) -> Option<Piece> {
        let text = std::mem::take(&mut self.held);
        let kind = if self.inside { Piece::Thought } else { Piece::Answer };
        (!text.is_empty()).then(|| kind(text))
    }
}

/// The reasoning tags a model uses: the first known pair that its template mentions and whose closing tag is
/// one of its tokens, else the first pair that the template mentions both tags of.
pub fn reasoning_markers(template: &str, tokenizer: &Tokenizer) -> Option<(String, String)> {
    const KNOWN: [(&str, &str); 6] = [
        ("<think>", "</think>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
    ];
    let says = |tag: &str| template.contains(tag);
    let token =
        |(open, close): &&(&str, &str)| (says(open) || says(close)) && tokenizer.token_id(close).is_some();
    let text = |(open, close): &&(&str, &str)| says(open) && says(close);
    let (open, close) = KNOWN.iter().find(token).or_else(|| KNOWN.iter().find(text))?;
    Some(((*open).into(), (*close).into()))
}

/// Whether a rendered prompt ends with the opening tag, so that the model starts inside a thought.
pub fn starts_inside(prompt: &str, open: &str) -> bool {
    !open.is_empty() && prompt.trim_end().ends_with(open.trim_end())
}
