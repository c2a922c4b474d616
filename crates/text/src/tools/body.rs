//! A section of tool calls to names and arguments, by the kind of spelling.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

use super::loose::Reader;
use super::schema::is_name;
use super::table::Body;
use super::tags::{pairs, tags};
use super::{ToolCall, Tools};
use crate::limits;

/// What was read of a section.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The calls; what counts them sets their `index`.
    pub list: Vec<ToolCall>,
    /// Up to where the text was understood, in bytes.
    pub end: usize,
}

impl Calls {
    /// Whether there was room for them.
    pub fn add(&mut self, calls: Vec<ToolCall>, end: usize) -> bool {
        let fits = self.list.len() + calls.len() <= limits::CALLS;
        if fits {
            self.list.extend(calls);
            self.end = end;
        }
        fits
    }
}

/// The tags of the family with the most models: others of its kin fall back on them.
const FUNCTION: [&str; 2] = ["<function=", "</function>"];
const PARAMETER: [&str; 2] = ["<parameter=", "</parameter>"];

/// Reads a section. `closed`: its closing marker was seen, so that it is not the beginning of something
/// longer. `recipient`: whom a header names.
pub(super) fn read(body: Body, text: &str, closed: bool, recipient: Option<&str>, tools: &Tools) -> Calls {
    let mut calls = Calls::default();
    match body {
        _ if recipient.is_some() => {
            let object = if text.trim().is_empty() { Some(("{}", text.len())) } else { json_value(text) };
            if let Some((call, end)) = object.and_then(|(raw, end)| Some((call(recipient?, raw)?, end))) {
                calls.add(vec![call], end);
            }
        }
        Body::Channels => {}
        Body::Json if text.trim_start().starts_with("<function=") => {
            tags(text, FUNCTION, PARAMETER, closed, tools, &mut calls);
        }
        Body::Json => json(text, &mut calls),
        Body::Named { marks, first } => named(text, marks, first, &mut calls),
        Body::Pairs { .. } | Body::Tags { .. } if text.trim_start().starts_with(['{', '[']) => {
            json(text, &mut calls);
        }
        Body::Pairs { key, value } if closed => {
            if let Some(call) = pairs(text, key, value, tools) {
                calls.add(vec![call], text.len());
            }
        }
        Body::Pairs { .. } => {}
        Body::Tags { call, parameter } => tags(text, call, parameter, closed, tools, &mut calls),
        Body::Python => Reader::new(text, None).python_calls(|list, end| calls.add(list, end)),
        Body::Braces { quote } => {
            Reader::new(text, Some(quote)).brace_calls(|list, end| calls.add(list, end))
        }
    }
    calls.end = text.len() - text[calls.end..].trim_start().len();
    calls
}

/// A call of one function with one JSON object of arguments.
pub(super) fn call(name: &str, arguments: &str) -> Option<ToolCall> {
    let plain = name.strip_prefix("functions.").unwrap_or(name);
    let (plain, id) = match plain.rsplit_once(':') {
        Some((plain, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (plain, Some(name.to_owned()))
        }
        _ => (plain, None),
    };
    let arguments = object(arguments)?;
    is_name(plain).then(|| ToolCall { index: 0, id, name: plain.into(), arguments })
}

/// The text of a JSON object in one line; a string that holds an object will do, and null for an empty one.
fn object(raw: &str) -> Option<String> {
    match serde_json::from_str(raw).ok()? {
        Value::Object(_) => Some(one_line(raw)),
        Value::Null => Some("{}".into()),
        Value::String(text) if text.trim().is_empty() => Some("{}".into()),
        Value::String(text) => {
            serde_json::from_str::<Value>(&text).ok().filter(Value::is_object).map(|_| one_line(&text))
        }
        _ => None,
    }
}

/// JSON without white space between its tokens; numbers stay as they are written.
fn one_line(json: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let keep = |char: &char| {
        let quote = *char == '"' && !escaped;
        escaped = inside && *char == '\\' && !escaped;
        inside ^= quote;
        inside || !char.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}

/// The JSON value that a text starts with, and where it ends.
pub(super) fn json_value(text: &str) -> Option<(&str, usize)> {
    let mut values = Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?;
    Some((value.get(), values.byte_offset()))
}

fn json(text: &str, calls: &mut Calls) {
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start_matches([' ', '\n', '\r', '\t', ',', ';']).len();
        // Templates that show their example in double braces teach them.
        let doubled = text[at..].trim_end().strip_prefix("{{").and_then(|inner| inner.strip_suffix('}'));
        let Some((raw, length)) = json_value(&text[at + usize::from(doubled.is_some())..]) else { return };
        at = if doubled.is_some() { text.len() } else { at + length };
        let list = match serde_json::from_str::<Vec<&RawValue>>(raw) {
            Ok(list) => list.into_iter().map(|item| named_object(item.get(), 0)).collect(),
            Err(_) => named_object(raw, 0).map(|call| vec![call]),
        };
        if !list.is_some_and(|list| calls.add(list, at)) {
            return;
        }
    }
}

/// `{"name": "f", "arguments": {…}}` under the names that families use, also inside `"function"`.
fn named_object(raw: &str, depth: usize) -> Option<ToolCall> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(raw).ok()?;
    let text = |key: &str| serde_json::from_str::<String>(fields.get(key)?.get()).ok();
    let arguments = || fields.get("arguments").or_else(|| fields.get("parameters"));
    let id = text("id").or_else(|| text("tool_call_id")).filter(|id| is_name(id));
    let found = match text("name").or_else(|| text("tool_name")).or_else(|| text("function")) {
        Some(name) => call(&name, arguments()?.get())?,
        None if depth == 0 => named_object(fields.get("function")?.get(), 1)?,
        None => return None,
    };
    Some(ToolCall { id: id.or(found.id), ..found })
}

fn named(text: &str, marks: &[&str], first: bool, calls: &mut Calls) {
    let mut at = 0;
    while let Some(brace) = text[at..].find('{') {
        let mut pieces = vec![&text[at..at + brace]];
        for mark in marks {
            pieces = pieces.into_iter().flat_map(|piece| piece.split(mark)).collect();
        }
        let mut pieces = pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty());
        let name = if first { pieces.next() } else { pieces.next_back() };
        let found = name.zip(json_value(&text[at + brace..]));
        let Some((call, length)) = found.and_then(|(name, (raw, end))| Some((call(name, raw)?, end))) else {
            return;
        };
        at += brace + length;
        at += marks_length(&text[at..], marks);
        if !calls.add(vec![call], at) {
            return;
        }
    }
}

/// Length of the marks and white space that a text begins with.
fn marks_length(text: &str, marks: &[&str]) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        match marks.iter().find_map(|mark| rest.strip_prefix(mark)) {
            Some(shorter) => rest = shorter,
            None => return text.len() - rest.len(),
        }
    }
}
