//! Ids to text one at a time.
//!
//! Two ways, by the decoder in `tokenizer.json`:
//! * byte-level: tokens are bytes, and what has arrived of a character waits for the rest;
//! * others: the decoder runs over the last finished token and the new ones, and the text beyond the former
//!   is new. Byte-fallback tokens wait for the end of their run, because one bad byte spoils the whole run.
//!
//! Either way a token is decoded at most twice, and nothing is shown before it is final.

use tokenizers::{Decoder, DecoderWrapper};

use crate::tokenizer::piece;
use crate::{Error, Tokenizer};

/// Most tokens that wait for a decoder to stop ending in U+FFFD.
const PATIENCE: usize = 8;

/// Decodes a stream of ids; all pushes and the finish together equal `decode(ids, true)`.
pub struct Detokeniser<'a> {
    tokenizer: &'a Tokenizer,
    state: State,
    /// Special tokens that are text here.
    kept: Vec<u32>,
}

enum State {
    /// Bytes of an unfinished character.
    Bytes(Vec<u8>),
    Window(Window),
}

#[derive(Default)]
struct Window {
    /// The last finished token.
    context: Vec<String>,
    /// Tokens whose text is not final.
    waiting: Vec<String>,
    byte_fallback: bool,
    byte_level: bool,
}

impl<'a> Detokeniser<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Detokeniser<'a> {
        let decoder = tokenizer.inner.get_decoder();
        let state = match decoder {
            Some(DecoderWrapper::ByteLevel(_)) => State::Bytes(Vec::new()),
            _ => State::Window(Window {
                byte_fallback: decoder.is_some_and(|decoder| {
                    contains(decoder, |part| matches!(part, DecoderWrapper::ByteFallback(_)))
                }),
                byte_level: decoder.is_some_and(|decoder| {
                    contains(decoder, |part| matches!(part, DecoderWrapper::ByteLevel(_)))
                }),
                ..Window::default()
            }),
        };
        Detokeniser { tokenizer, state, kept: Vec::new() }
    }

    /// Takes the special tokens that occur in these strings for text: markers of thoughts and tool calls.
    pub fn keeping(mut self, markers: &[&str]) -> Detokeniser<'a> {
        let inside = |token: &str| !token.is_empty() && markers.iter().any(|marker| marker.contains(token));
        let special = self.tokenizer.special_tokens();
        self.kept = special.filter(|(_, token)| inside(token)).map(|(id, _)| id).collect();
        self
    }

    /// Takes one id and returns the text it completes, often empty in the middle of a character. Special
    /// tokens and ids without a token have no text.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        if self.tokenizer.is_special(id) && !self.kept.contains(&id) {
            return Ok(String::new());
        }
        let Some(token) = piece(&self.tokenizer.inner, id) else { return Ok(String::new()) };
        match &mut self.state {
            State::Bytes(bytes) => {
                append_bytes(&token, bytes);
                Ok(take_complete(bytes))
            }
            State::Window(window) => window.push(token, self.tokenizer),
        }
    }

    /// Ends the stream: what is still incomplete, as `decode` shows it. The next push starts a new stream.
    pub fn finish(&mut self) -> Result<String, Error> {
        match &mut self.state {
            State::Bytes(bytes) => Ok(String::from_utf8_lossy(&std::mem::take(bytes)).into_owned()),
            State::Window(window) => {
                let text = if window.waiting.is_empty() {
                    Ok(String::new())
                } else {
                    window.new_text(self.tokenizer)
                };
                window.context.clear();
                window.waiting.clear();
                text
            }
        }
    }
}

impl Window {
    fn push(&mut self, token: String, tokenizer: &Tokenizer) -> Result<String, Error> {
        let is_byte = self.byte_fallback && is_byte_token(&token);
        self.waiting.push(token);
        if is_byte {
            return Ok(String::new());
        }
        let text = self.new_text(tokenizer)?;
        if self.byte_level && text.ends_with('\u{FFFD}') && self.waiting.len() < PATIENCE {
            return Ok(String::new());
        }
        self.context.clear();
        self.context.extend(self.waiting.pop());
        self.waiting.clear();
        Ok(text)
    }

    /// The text of the waiting tokens, which follow the context.
    fn new_text(&self, tokenizer: &Tokenizer) -> Result<String, Error> {
        let before = decode(tokenizer, self.context.clone())?;
        let all = decode(tokenizer, self.context.iter().chain(&self.waiting).cloned().collect())?;
        all.strip_prefix(&before).map(str::to_owned).ok_or_else(|| {
            Error::Decode(format!("the text {before:?} of a token became {all:?} when more tokens followed"))
        })
    }
}

fn decode(tokenizer: &Tokenizer, tokens: Vec<String>) -> Result<String, Error> {
    if tokens.is_empty() {
        return Ok(String::new());
    }
    match tokenizer.inner.get_decoder() {
        Some(decoder) => decoder.decode(tokens).map_err(|error| Error::Decode(error.to_string())),
        None => Ok(tokens.join(" ")),
    }
}

fn contains(decoder: &DecoderWrapper, wanted: fn(&DecoderWrapper) -> bool) -> bool {
    match decoder {
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().any(|part| contains(part, wanted)),
        part => wanted(part),
    }
}

/// `<0x0A>` and its like, by the rule of the byte-fallback decoder.
fn is_byte_token(token: &str) -> bool {
    token.len() == 6
        && token.starts_with("<0x")
        && token.ends_with('>')
        && token.get(3..5).is_some_and(|digits| u8::from_str_radix(digits, 16).is_ok())
}

/// Appends the bytes that a byte-level token stands for; a token with a character outside that alphabet
/// stands for itself, as in the byte-level decoder.
fn append_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for char in token.chars() {
        match byte_of(char) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// The byte-level alphabet: printable Latin-1 stands for itself, the other 68 bytes follow from U+0100.
fn byte_of(char: char) -> Option<u8> {
    match u32::from(char) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Takes the finished characters out of `bytes`, bad sequences as U+FFFD.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut done = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        done += chunk.valid().len();
        let bad = chunk.invalid();
        let at_end = done + bad.len() == bytes.len();
        let may_go_on =
            at_end && std::str::from_utf8(bad).map_or_else(|error| error.error_len().is_none(), |_| true);
        if !may_go_on && !bad.is_empty() {
            text.push('\u{FFFD}');
            done += bad.len();
        }
    }
    bytes.drain(..done);
    text
}
