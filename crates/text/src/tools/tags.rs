//! Calls whose arguments stand in tags of their own, as models write them: closing tags are forgotten or come
//! twice, and now and then a JSON object stands where the tags belong. What remains unclear is no call.

use serde_json::{Map, Value};

use super::body::{Calls, call, json_value};
use super::schema::{is_name, typed};
use super::{ToolCall, Tools};

/// Calls in tags that carry names, one after another: beginnings and ends of a call and of a parameter.
pub(super) fn tags(
    text: &str,
    tag: [&str; 2],
    parameter: [&str; 2],
    closed: bool,
    tools: &Tools,
    calls: &mut Calls,
) {
    let mut rest = text;
    while let Some((call, after)) = tagged(rest, tag, parameter, closed, tools) {
        rest = after;
        if !calls.add(vec![call], text.len() - rest.len()) {
            return;
        }
    }
}

/// One call in tags, and the text after it.
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
    if let Some((raw, end)) = json_value(rest).filter(|(raw, _)| raw.starts_with('{')) {
        let after = rest[end..].trim_start();
        let after = after.strip_prefix(tag[1]).or_else(|| (closed && after.is_empty()).then_some(after))?;
        return Some((call(name, raw)?, after));
    }
    let mut arguments = Map::new();
    let after = loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(tag[1]) {
            break after;
        }
        if rest.is_empty() && closed {
            break rest;
        }
        if let Some(after) = rest.strip_prefix(parameter[1]).filter(|_| !arguments.is_empty()) {
            rest = after;
            continue;
        }
        let (head, value) = rest.strip_prefix(parameter[0])?.split_once('>')?;
        let (name, string) = attribute(head);
        let (value, after) = value_of(value, name, parameter, Some(tag[1]), closed, |next| {
            let name = attribute(next.split_once('>').map_or("", |(head, _)| head)).0;
            parameters.is_none_or(|schema| schema["properties"].get(name).is_some())
        })?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let value = match string {
            Some(false) => serde_json::from_str(value).ok()?,
            Some(true) => value.into(),
            None => typed(value, parameters, name),
        };
        // Two values for one name: which is meant?
        if !is_name(name) || arguments.insert(name.into(), value).is_some() {
            return None;
        }
        rest = after;
    };
    Some((call(name, &Value::Object(arguments).to_string())?, after))
}

/// A value and the text after it. Parameters do not nest: a value whose closing tag was forgotten ends where
/// the next parameter begins, or with the call. A closing tag named after the parameter is none of the value.
fn value_of<'t>(
    text: &'t str,
    name: &str,
    [open, close]: [&str; 2],
    end: Option<&str>,
    closed: bool,
    begins: impl Fn(&str) -> bool,
) -> Option<(&'t str, &'t str)> {
    let closing = text.find(close);
    let before = &text[..closing.unwrap_or(text.len())];
    let next = before.match_indices(open).map(|(at, _)| at).find(|at| begins(&text[at + open.len()..]));
    if let (Some(at), None) = (closing, next) {
        return Some((&text[..at], &text[at + close.len()..]));
    }
    let at = match next.or_else(|| text.find(end?)) {
        Some(at) => at,
        None => closed.then_some(text.len())?,
    };
    let value = &text[..at];
    let own = value.trim_end().strip_suffix('>').and_then(|value| value.strip_suffix(name));
    Some((own.and_then(|value| value.strip_suffix("</")).unwrap_or(value), &text[at..]))
}

/// A name, then pairs of keys and values in their tags; or a JSON object, with or without round brackets.
pub(super) fn pairs(text: &str, key: [&str; 2], value: [&str; 2], tools: &Tools) -> Option<ToolCall> {
    let first = [text.find(key[0]), text.find('{')].into_iter().flatten().min();
    let (name, mut rest) = text.split_at(first.unwrap_or(text.len()));
    if rest.starts_with('{') {
        let (raw, end) = json_value(rest)?;
        let (name, end) = (name.trim(), rest[end..].trim());
        let name = if end == ")" { name.strip_suffix('(')? } else { name };
        return call(name.trim_end(), raw).filter(|_| end.is_empty() || end == ")");
    }
    let name = name.trim();
    let parameters = tools.parameters(name);
    let mut arguments = Map::new();
    while !rest.trim_start().is_empty() {
        let (name, after) = rest.trim_start().strip_prefix(key[0])?.split_once(key[1])?;
        let name = name.trim();
        let after = after.trim_start().strip_prefix(value[0])?;
        let (text, after) = value_of(after, name, [key[0], value[1]], None, true, |next| {
            let name = next.split_once(key[1]).map_or("", |(name, _)| name.trim());
            parameters.is_none_or(|schema| schema["properties"].get(name).is_some())
        })?;
        if !is_name(name) || arguments.insert(name.into(), typed(text, parameters, name)).is_some() {
            return None;
        }
        rest = after;
    }
    call(name, &Value::Object(arguments).to_string())
}

/// The name in the head of a tag, quoted or not, and whether an attribute says that the value is a string.
pub(super) fn attribute(head: &str) -> (&str, Option<bool>) {
    let head = head.trim();
    let name = match head.chars().next() {
        Some(quote @ ('"' | '\'')) => head[1..].split(quote).next(),
        _ => head.split_whitespace().next(),
    };
    let says = |text: &str| head.contains(text);
    let string = if says("string=\"true\"") { Some(true) } else { says("string=\"false\"").then_some(false) };
    (name.unwrap_or_default(), string)
}
