//! Streamed text to answer, thoughts and calls. However the text is cut, the pieces say the same.
//!
//! A reader is in one of four modes and looks for the markers of that mode. Outside of calls only an ending
//! that may begin a marker is held back. A call is held until it is closed; if it cannot be read then, or is
//! too large, all of it becomes part of the answer. A call in a thought counts if nothing follows it: models
//! draft calls there, and write them again after the thought.

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input};

use super::body::{self, Calls};
use super::table::Body;
use super::unmarked::{begins_call, begins_thought, calls_in_thought, floor, is_call};
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
    /// In a call without its section.
    Alone,
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
    markers: [Markers; 5],
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
    /// White space directly after a call is not part of the answer, and neither is a second closing marker.
    after_call: bool,
    /// The last of the thought.
    thought: String,
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
            [ends.clone(), ends.clone(), lead(open, None).collect(), ends, Vec::new()]
        } else {
            let tags = format.reasoning.iter();
            let drop = dialect.map_or(&[][..], |dialect| dialect.drop);
            let opens = tags.clone().map(|(open, _)| (open.as_str(), Some(Mode::Thought)));
            let ends = tags.map(|(_, close)| (close.as_str(), Some(Mode::Answer)));
            let closes: Vec<_> = lead(close, Some(Mode::Answer)).collect();
            let alone = dialect.and_then(|dialect| dialect.alone);
            let begins = alone.into_iter().map(|[begin, _]| (begin, Some(Mode::Alone)));
            let answer = opens.chain(lead(open, Some(Mode::Call))).chain(lead(drop, None));
            let answer = answer.chain(begins).chain(closes.clone()).collect();
            let call_ends = alone.into_iter().map(|[_, end]| (end, Some(Mode::Answer)));
            let call_ends = call_ends.chain(closes.clone()).collect();
            [answer, ends.collect(), Vec::new(), closes, call_ends]
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
            thought: String::new(),
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
                Mode::Call | Mode::Alone => self.call(at, &mut pieces),
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
            Mode::Call | Mode::Alone => self.close(&held, "", false, &mut pieces),
            // A message that was cut off in its header has no text.
            Mode::Header if held.starts_with("<|") => {}
            _ => self.emit(&held, &mut pieces),
        }
        (self.mode, self.searched) = (Mode::Answer, 0);
        if self.fresh && self.calls == 0 {
            pieces.extend(calls_in_thought(&self.format, &self.thought).into_iter().map(Piece::Call));
        }
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
        if self.fresh && self.mode == Mode::Answer {
            match begins_thought(&self.held[at..], &self.format) {
                None => return None,
                Some(0) => {}
                Some(length) => {
                    self.enter(Mode::Thought, at..at + length);
                    return Some(at + length);
                }
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
        match (self.mode, next) {
            // A section that ends before it began.
            (Mode::Answer, Some(Mode::Answer)) => {
                let marker = self.held[start..end].to_owned();
                self.emit(if self.after_call { "" } else { &marker }, pieces);
            }
            (_, Some(Mode::Alone)) => match is_call(&self.held[start..], &self.format) {
                None => return (start > at).then_some(start),
                Some(true) => {
                    self.enter(Mode::Alone, start..start);
                    return Some(start);
                }
                Some(false) => {
                    let marker = self.held[start..end].to_owned();
                    self.emit(&marker, pieces);
                }
            },
            (_, Some(mode)) => self.enter(mode, start..end),
            (_, None) => {}
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
        let markers = &self.markers[self.mode as usize];
        let own = self.format.dialect?.alone.filter(|_| self.mode == Mode::Alone).map(|[_, end]| end);
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
            // The end of a call without a section belongs to it.
            let split = if Some(&self.held[start..end]) == own { end } else { start };
            let (text, marker) = (self.held[at..split].to_owned(), self.held[split..end].to_owned());
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
        let unknown = self.mode == Mode::Alone && list.iter().any(|call| !self.format.tools.has(&call.name));
        self.mode = Mode::Answer;
        let head = std::mem::take(&mut self.head);
        self.fresh = false;
        if list.is_empty() || unknown || self.calls + list.len() > limits::CALLS {
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
            self.thought.push_str(text);
            let excess = self.thought.len().saturating_sub(2 * limits::CALL_BYTES);
            if excess > 0 {
                let from = floor(&self.thought, limits::CALL_BYTES + excess);
                self.thought.drain(..from);
            }
            pieces.push(Piece::Thought(text.to_owned()));
        } else {
            self.after_call = false;
            self.fresh &= text.trim_start().is_empty();
            pieces.push(Piece::Answer(text.to_owned()));
        }
    }
}
