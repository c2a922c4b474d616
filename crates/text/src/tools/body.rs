//! A section of tool calls to names and arguments, by the kind of spelling.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};

use super::loose::Reader;
use super::schema::{is_name, typed};
use super::table::Body;
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
    fn add(&mut self, calls: Vec<ToolCall>, end: usize) -> bool {
        let fits = self.list.len() + calls.len() <= limits::CALLS;
        if fits {
            self.list.extend(calls);
            self.end = end;
        }
        fits
    }
}

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
        Body::Json => json(text, &mut calls),
        Body::Named { marks, first } => named(text, marks, first, &mut calls),
        Body::Pairs { .. } if text.trim_start().starts_with('{') => json(text, &mut calls),
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
fn json_value(text: &str) -> Option<(&str, usize)> {
    let mut values = Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?;
    Some((value.get(), values.byte_offset()))
}

fn json(text: &str, calls: &mut Calls) {
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start_matches([' ', '\n', '\r', '\t', ',', ';']).len();
        let Some((raw, length)) = json_value(&text[at..]) else { return };
        at += length;
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

fn pairs(text: &str, key: [&str; 2], value: [&str; 2], tools: &Tools) -> Option<ToolCall> {
    let (name, mut rest) = text.split_at(text.find(key[0]).unwrap_or(text.len()));
    let name = name.trim();
    let parameters = tools.parameters(name);
    let mut arguments = Map::new();
    while !rest.trim_start().is_empty() {
        let (name, after) = rest.trim_start().strip_prefix(key[0])?.split_once(key[1])?;
        let (text, after) = after.trim_start().strip_prefix(value[0])?.split_once(value[1])?;
        let name = name.trim();
        arguments.insert(name.into(), typed(text, parameters, name));
        rest = after;
    }
    call(name, &Value::Object(arguments).to_string())
}

fn tags(text: &str, tag: [&str; 2], parameter: [&str; 2], closed: bool, tools: &Tools, calls: &mut Calls) {
    let mut rest = text;
    while let Some((call, after)) = tagged(rest, tag, parameter, closed, tools) {
        rest = after;
        if !calls.add(vec![call], text.len() - rest.len()) {
            return;
        }
    }
}

/// One call in tags, and the text after it. Models forget the closing tag of a parameter: its value then ends
/// with the call.
fn tagged<'t>(
    text: &'t str,
    tag: [&str; 2],
    parameter: [&str; 2],
    closed: bool,
    tools: &Tools,
) -> Option<(ToolCall, &'t str)> {
    let (head, mut rest) = text.trim_start().strip_prefix(tag[0])?.split_once('>')?;
    let (name, _) = attribute(head);
    let parameters = tools.parameters(name);
    let mut arguments = Map::new();
    let after = loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(tag[1]) {
            break after;
        }
        if rest.is_empty() && closed {
            break rest;
        }
        let (head, value) = rest.strip_prefix(parameter[0])?.split_once('>')?;
        let (name, string) = attribute(head);
        let to_the_end = || match value.find(tag[1]) {
            Some(end) => Some(value.split_at(end)),
            None => closed.then_some((value, "")),
        };
        let (value, after) = value.split_once(parameter[1]).or_else(to_the_end)?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let value = match string {
            Some(false) => serde_json::from_str(value).ok()?,
            Some(true) => value.into(),
            None => typed(value, parameters, name),
        };
        arguments.insert(name.into(), value);
        rest = after;
    };
    Some((call(name, &Value::Object(arguments).to_string())?, after))
}

/// The name in the head of a tag, quoted or not, and whether an attribute says that the value is a string.
fn attribute(head: &str) -> (&str, Option<bool>) {
    let head = head.trim();
    let name = match head.chars().next() {
        Some(quote @ ('"' | '\'')) => head[1..].split(quote).next(),
        _ => head.split_whitespace().next(),
    };
    let says = |text: &str| head.contains(text);
    let string = if says("string=\"true\"") { Some(true) } else { says("string=\"false\"").then_some(false) };
    (name.unwrap_or_default(), string)
}
