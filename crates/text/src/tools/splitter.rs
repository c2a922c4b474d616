//! Streamed text to answer, thoughts and calls. However the text is cut, the pieces say the same.
//!
//! A reader is in one of four modes and looks for the markers of that mode. Outside of calls only an ending
//! that may begin a marker is held back. A call is held until it is closed; if it cannot be read then, or is
//! too large, all of it becomes part of the answer.

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input};

use super::body::{self, Calls};
use super::table::Body;
use super::{Format, Piece};
use crate::limits;
use crate::stop::begun;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Answer,
    Thought,
    /// Between the messages of a dialect with channels.
    Header,
    Call,
}

/// Markers that matter in one mode, and where they lead; `None` stays.
#[derive(Debug, Clone)]
struct Markers {
    list: Vec<(String, Option<Mode>)>,
    finder: Option<AhoCorasick>,
}

impl Markers {
    fn new(list: Vec<(&str, Option<Mode>)>) -> Markers {
        let list: Vec<_> = list.into_iter().filter(|(text, _)| !text.is_empty()).collect();
        // The kind that is built soonest: there is a new one for every answer. Building fails for gigabytes
        // of patterns only; these come from a table and two tags.
        let mut builder = AhoCorasick::builder();
        builder.kind(Some(AhoCorasickKind::NoncontiguousNFA));
        let finder = builder.build(list.iter().map(|(text, _)| text)).ok().filter(|_| !list.is_empty());
        Markers { list: list.into_iter().map(|(text, mode)| (text.to_owned(), mode)).collect(), finder }
    }

    /// Start, end and meaning of the first marker at or after `from`.
    fn find(&self, text: &str, from: usize) -> Option<(usize, usize, Option<Mode>)> {
        let found = self.finder.as_ref()?.find(Input::new(text).range(from..))?;
        Some((found.start(), found.end(), self.list[found.pattern()].1))
    }

    /// The length of the longest ending that may begin a marker.
    fn begun(&self, text: &str) -> usize {
        self.list.iter().map(|(marker, _)| begun(text, marker)).max().unwrap_or(0)
    }
}

/// Where a search of a call stands with respect to quotation marks.
#[derive(Debug, Clone, Copy, Default)]
struct Quotes {
    at: usize,
    open: Option<u8>,
    escaped: bool,
}

impl Quotes {
    /// Whether a string is open at `end` of a text whose beginning it has seen before.
    fn open_at(&mut self, text: &[u8], end: usize, marks: &[u8]) -> bool {
        for &byte in &text[self.at.min(end)..end] {
            match self.open {
                Some(_) if self.escaped => self.escaped = false,
                Some(_) if byte == b'\\' => self.escaped = true,
                Some(open) if byte == open => self.open = None,
                None if marks.contains(&byte) => self.open = Some(byte),
                _ => {}
            }
        }
        self.at = end;
        self.open.is_some()
    }
}

/// Splits streamed text by a [`Format`]; markers may be spread over several pushes.
#[derive(Debug, Clone)]
pub struct Splitter {
    format: Format,
    /// By mode, in the order of its variants.
    markers: [Markers; 4],
    mode: Mode,
    /// Text that is not decided; in a call, all of it.
    held: String,
    /// No marker starts before this place in `held`.
    searched: usize,
    quotes: Quotes,
    /// What opened the call, as it was written.
    head: String,
    /// Whom the header of the call names.
    recipient: Option<String>,
    calls: usize,
    /// Nothing but white space has been answered.
    fresh: bool,
    /// White space directly after a call is not part of the answer.
    after_call: bool,
}

impl Splitter {
    /// A splitter for one answer.
    pub fn new(format: &Format) -> Splitter {
        let dialect = format.dialect;
        let lead = |list: &'static [&'static str], mode| list.iter().map(move |marker| (*marker, mode));
        let open = dialect.map_or(&[][..], |dialect| dialect.open);
        let close = dialect.map_or(&[][..], |dialect| dialect.close);
        let channels = dialect.is_some_and(|dialect| dialect.body == Body::Channels);
        let lists = if channels {
            let ends: Vec<_> = lead(close, Some(Mode::Header)).collect();
            [ends.clone(), ends.clone(), lead(open, None).collect(), ends]
        } else {
            let tags = format.reasoning.iter();
            let drop = dialect.map_or(&[][..], |dialect| dialect.drop);
            let opens = tags.clone().map(|(open, _)| (open.as_str(), Some(Mode::Thought)));
            let ends = tags.map(|(_, close)| (close.as_str(), Some(Mode::Answer)));
            let answer = opens.chain(lead(open, Some(Mode::Call))).chain(lead(drop, None)).collect();
            [answer, ends.collect(), Vec::new(), lead(close, Some(Mode::Answer)).collect()]
        };
        let mode = match (channels, format.starts_inside) {
            (true, _) => Mode::Header,
            (false, true) => Mode::Thought,
            (false, false) => Mode::Answer,
        };
        Splitter {
            format: format.clone(),
            markers: lists.map(Markers::new),
            mode,
            held: String::new(),
            searched: 0,
            quotes: Quotes::default(),
            head: String::new(),
            recipient: None,
            calls: 0,
            fresh: true,
            after_call: false,
        }
    }

    /// Whether the text so far ends inside a thought.
    pub fn inside(&self) -> bool {
        self.mode == Mode::Thought
    }

    /// Takes the next text and returns what is certain, without empty pieces.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        let mut at = 0;
        loop {
            let next = match self.mode {
                Mode::Answer | Mode::Thought => self.text(at, &mut pieces),
                Mode::Header => self.header(at, &mut pieces),
                Mode::Call => self.call(at, &mut pieces),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        self.held.drain(..at);
        self.searched = self.searched.saturating_sub(at);
        self.quotes.at = self.quotes.at.saturating_sub(at);
        pieces
    }

    /// Ends the text: what was held back after all.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.mode {
            Mode::Call => self.close(&held, "", false, &mut pieces),
            // A message that was cut off in its header has no text.
            Mode::Header if held.starts_with("<|") => {}
            _ => self.emit(&held, &mut pieces),
        }
        (self.mode, self.searched) = (Mode::Answer, 0);
        pieces
    }

    /// Answer or thought, from `at`: up to where everything is decided, `None` for no further than `at`.
    fn text(&mut self, at: usize, pieces: &mut Vec<Piece>) -> Option<usize> {
        let bare = self.fresh
            && self.mode == Mode::Answer
            && self.format.dialect.is_some_and(|dialect| dialect.bare)
            && !self.held[at..].is_empty();
        if bare {
            match begins_call(&self.held[at..], self.format.dialect?.body) {
                None => return None,
                Some(true) => {
                    self.enter(Mode::Call, at..at);
                    return Some(at);
                }
                Some(false) => self.fresh = false,
            }
        }
        let markers = &self.markers[self.mode as usize];
        let (start, end, next) = match markers.find(&self.held, at) {
            Some(found) => found,
            None => {
                let safe = self.held.len() - markers.begun(&self.held[at..]);
                (safe, safe, None)
            }
        };
        let text = self.held[at..start].to_owned();
        self.emit(&text, pieces);
        if let Some(mode) = next {
            self.enter(mode, start..end);
        }
        // The first marks of a header belong to it.
        let end = if next == Some(Mode::Header) && self.heads(start) { start } else { end };
        (end > at || next.is_some()).then_some(end)
    }

    /// Whether the marker here begins a header rather than ending a message.
    fn heads(&self, at: usize) -> bool {
        ["<|start|>", "<|channel|>"].iter().any(|marker| self.held[at..].starts_with(marker))
    }

    fn enter(&mut self, mode: Mode, marker: std::ops::Range<usize>) {
        self.head = if mode == Mode::Call { self.held[marker.clone()].to_owned() } else { String::new() };
        self.mode = mode;
        self.searched = marker.end;
        self.quotes = Quotes { at: marker.end, ..Quotes::default() };
    }

    /// The header of a message, from `at`.
    fn header(&mut self, at: usize, pieces: &mut Vec<Piece>) -> Option<usize> {
        let markers = &self.markers[Mode::Header as usize];
        let found = markers.find(&self.held, at.max(self.searched));
        let start = found.map_or(self.held.len() - markers.begun(&self.held[at..]), |(start, ..)| start);
        self.searched = start;
        if start - at > limits::HEADER_BYTES {
            let end = floor(&self.held, at + limits::HEADER_BYTES);
            return Some(self.give_up(at, end, pieces));
        }
        let (start, end, _) = found?;
        let header = &self.held[at..start];
        let mut words = header.split(|char: char| char.is_whitespace() || "<|>".contains(char));
        let recipient = words.clone().find_map(|word| word.strip_prefix("to=")).map(str::to_owned);
        let mode = match recipient {
            Some(_) => Mode::Call,
            None if words.any(|word| word == "analysis") => Mode::Thought,
            None => Mode::Answer,
        };
        self.recipient = recipient;
        self.enter(mode, at..end);
        Some(end)
    }

    /// A call, from `at`.
    fn call(&mut self, at: usize, pieces: &mut Vec<Piece>) -> Option<usize> {
        let marks: &[u8] = match self.format.dialect?.body {
            Body::Json | Body::Named { .. } | Body::Channels => b"\"",
            Body::Python => b"\"'",
            Body::Pairs { .. } | Body::Tags { .. } | Body::Braces { .. } => b"",
        };
        let markers = &self.markers[Mode::Call as usize];
        loop {
            let found = markers.find(&self.held, at.max(self.searched));
            let start = found.map_or(self.held.len() - markers.begun(&self.held[at..]), |(start, ..)| start);
            if start - at > limits::CALL_BYTES {
                let end = floor(&self.held, at + limits::CALL_BYTES);
                return Some(self.give_up(at, end, pieces));
            }
            self.searched = start.max(self.searched);
            let (start, end, next) = found?;
            if self.quotes.open_at(self.held.as_bytes(), start, marks) {
                self.searched = end;
                continue;
            }
            let (text, marker) = (self.held[at..start].to_owned(), self.held[start..end].to_owned());
            self.close(&text, &marker, true, pieces);
            self.enter(next.unwrap_or(Mode::Answer), start..end);
            let end = if self.mode == Mode::Header && self.heads(start) { start } else { end };
            return Some(end);
        }
    }

    /// Makes the head and the text from `at` to `end` part of the answer.
    fn give_up(&mut self, at: usize, end: usize, pieces: &mut Vec<Piece>) -> usize {
        self.mode = Mode::Answer;
        self.fresh = false;
        let text = std::mem::take(&mut self.head) + &self.held[at..end];
        self.emit(&text, pieces);
        end
    }

    /// The calls of a finished section; what cannot be read becomes part of the answer.
    fn close(&mut self, text: &str, marker: &str, closed: bool, pieces: &mut Vec<Piece>) {
        let recipient = self.recipient.take();
        let Calls { mut list, end } = match self.format.dialect {
            Some(dialect) => body::read(dialect.body, text, closed, recipient.as_deref(), &self.format.tools),
            None => Calls::default(),
        };
        self.mode = Mode::Answer;
        let head = std::mem::take(&mut self.head);
        self.fresh = false;
        if list.is_empty() || self.calls + list.len() > limits::CALLS {
            self.emit(&(head + text + marker), pieces);
            return;
        }
        for call in &mut list {
            call.index = self.calls;
            self.calls += 1;
        }
        pieces.extend(list.into_iter().map(Piece::Call));
        self.after_call = true;
        let rest = &text[end..];
        let cut_off = !closed && self.markers[Mode::Call as usize].begun(rest) == rest.len();
        self.emit(if cut_off { "" } else { rest }, pieces);
    }

    fn emit(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        let inside = self.mode == Mode::Thought;
        let text = if self.after_call && !inside { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        if inside {
            pieces.push(Piece::Thought(text.to_owned()));
        } else {
            self.after_call = false;
            self.fresh &= text.trim_start().is_empty();
            pieces.push(Piece::Answer(text.to_owned()));
        }
    }
}

/// The last boundary between characters at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Whether an answer that begins so is a call without a marker; `None` while that is open.
fn begins_call(text: &str, body: Body) -> Option<bool> {
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
