//! Calls and thoughts whose opening marker the model left out.

use super::table::Body;
use super::tags::attribute;
use super::{Format, Piece, Splitter, ToolCall};
use crate::limits;

/// The last boundary between characters at or before `at`.
pub(super) fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Whether an answer that begins so is a call without a marker; `None` while that is open.
pub(super) fn begins_call(text: &str, body: Body) -> Option<bool> {
    let text = &text[..floor(text, limits::HEADER_BYTES)];
    let full = text.len() + 4 > limits::HEADER_BYTES;
    let rest = text.trim_start();
    let verdict = match body {
        Body::Python => match rest.strip_prefix('[') {
            Some(name) => {
                let name = name.trim_start();
                let end = name.find(|char: char| !char.is_alphanumeric() && !"_.-".contains(char));
                end.map(|end| end > 0 && name[end..].starts_with('('))
            }
            None => (!rest.is_empty()).then_some(false),
        },
        _ => {
            let inner = rest.strip_prefix('[').unwrap_or(rest).trim_start();
            match inner.strip_prefix('{').map(str::trim_start) {
                Some(key) => {
                    let of = |word: &str| {
                        if key.starts_with(word) {
                            Some(true)
                        } else {
                            (!word.starts_with(key)).then_some(false)
                        }
                    };
                    let words = ["\"name\"", "\"type\"", "\"function\"", "\"parameters\""].map(of);
                    if words.contains(&Some(true)) {
                        Some(true)
                    } else {
                        (!words.contains(&None)).then_some(false)
                    }
                }
                None => (!inner.is_empty()).then_some(false),
            }
        }
    };
    verdict.or(full.then_some(false))
}

/// Whether the beginning of a call that stands here without its section is one; `None` while that is open. In
/// tags, which may be part of any text, it must name a tool of the chat.
pub(super) fn is_call(text: &str, format: &Format) -> Option<bool> {
    let dialect = format.dialect?;
    let Body::Tags { call: [begin, _], .. } = dialect.body else { return Some(true) };
    let head = text.strip_prefix(begin)?;
    match head.split_once('>') {
        Some((head, _)) => Some(format.tools.has(attribute(head).0)),
        None => (head.len() > limits::HEADER_BYTES).then_some(false),
    }
}

/// The length of the beginning of an answer that is the name of a thought's channel without its marker; 0 if
/// it is none, `None` while that is open.
pub(super) fn begins_thought(text: &str, format: &Format) -> Option<usize> {
    let Some((open, _)) = &format.reasoning else { return Some(0) };
    let name = &open[open.trim_end_matches(|char: char| char.is_ascii_alphabetic()).len()..];
    if name.is_empty() || name.len() == open.len() {
        return Some(0);
    }
    let rest = text.trim_start();
    match rest.strip_prefix(name) {
        Some("") => None,
        Some(after) if after.starts_with('\n') => Some(text.len() - after.len()),
        None if name.starts_with(rest) => None,
        _ => Some(0),
    }
}

/// The calls that a thought ends with, all of tools of the chat. Nothing but white space may follow.
pub(super) fn calls_in_thought(format: &Format, thought: &str) -> Vec<ToolCall> {
    let format = Format { reasoning: None, starts_inside: false, ..format.clone() };
    let channels = format.dialect.is_none_or(|dialect| dialect.body == Body::Channels);
    if channels || thought.trim().is_empty() {
        return Vec::new();
    }
    let mut splitter = Splitter::new(&format);
    let mut pieces = splitter.push(thought);
    pieces.extend(splitter.finish());
    let mut calls = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Call(call) => calls.push(call),
            Piece::Answer(text) if !text.trim().is_empty() => calls.clear(),
            _ => {}
        }
    }
    if calls.iter().any(|call| !format.tools.has(&call.name)) {
        return Vec::new();
    }
    for (index, call) in calls.iter_mut().enumerate() {
        call.index = index;
    }
    calls
}
