//! Values as Python prints them.

use std::borrow::Cow;
use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::refuse;
use crate::limits;

/// `str(value)`.
pub(crate) fn text<'v>(state: &State, value: &'v Value) -> Result<Cow<'v, str>, Error> {
    match value.as_str() {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => print(state, value, false).map(Cow::Owned),
    }
}

/// `repr(value)`.
pub(crate) fn repr(state: &State, value: &Value) -> Result<String, Error> {
    print(state, value, true)
}

fn print(state: &State, value: &Value, nested: bool) -> Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value, usize::from(nested))?;
    state.consume_fuel(out.len() as u64 / 16)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > limits::JSON_DEPTH {
        return Err(refuse(format!("a value is printed to {} levels of nesting only", limits::JSON_DEPTH)));
    }
    match value.kind() {
        ValueKind::Undefined if depth > 0 => out.push_str("Undefined"),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String if depth > 0 => quote(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            out.push_str(open);
            let mut count = 0;
            for item in value.try_iter()?.checked() {
                out.push_str(if count > 0 { ", " } else { "" });
                write(out, &item?, depth + 1)?;
                count += 1;
            }
            out.push_str(if value.is_tuple() && count == 1 { "," } else { "" });
            out.push_str(close);
        }
        ValueKind::Map if !is_named(value, "<macro ") => {
            let namespace = is_named(value, "Namespace");
            out.push_str(if namespace { "<Namespace {" } else { "{" });
            let mut separator = "";
            for key in value.try_iter()?.checked() {
                let key = key?;
                out.push_str(separator);
                write(out, &key, depth + 1)?;
                out.push_str(": ");
                write(out, &value.get_item(&key)?, depth + 1)?;
                separator = ", ";
            }
            out.push_str(if namespace { "}>" } else { "}" });
        }
        _ => write!(out, "{value}").map_err(|_| refuse("a value cannot be printed"))?,
    }
    if out.len() > limits::OUTPUT_BYTES {
        return Err(refuse(format!("a value is printed to {} bytes only", limits::OUTPUT_BYTES)));
    }
    Ok(())
}

/// Whether an object of the engine has a name that begins so, which is all it tells of what it is.
pub(crate) fn is_named(value: &Value, start: &str) -> bool {
    /// Takes text as long as it is `wanted`.
    struct Beginning<'t>(&'t str);
    impl Write for Beginning<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let length = text.len().min(self.0.len());
            self.0 = self.0.strip_prefix(text.get(..length).unwrap_or("\0")).ok_or(std::fmt::Error)?;
            if self.0.is_empty() { Err(std::fmt::Error) } else { Ok(()) }
        }
    }
    let mut rest = Beginning(start);
    let _ = value.as_object().map(|object| write!(rest, "{object:?}"));
    rest.0.is_empty()
}

/// Text as markup, escaped as markupsafe does.
pub(crate) fn escaped(text: &str) -> String {
    let quoted = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    quoted.replace('"', "&#34;").replace('\'', "&#39;")
}

/// A number as Python prints it.
pub(crate) fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => match float {
            _ if float.is_nan() => "nan".into(),
            _ if float.is_infinite() => if float > 0.0 { "inf" } else { "-inf" }.into(),
            _ => finite(float),
        },
        _ => value.to_string(),
    }
}

/// Shortest digits, an exponent from 1e16 up and below 1e-4.
fn finite(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        _ if float == 0.0 => format!("{float:?}"),
        exponent @ (..-4 | 16..) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ if float.fract() == 0.0 => format!("{float:.1}"),
        _ => format!("{float}"),
    }
}

/// Text in quotes, with escapes for what cannot be seen.
fn quote(out: &mut String, text: &str) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if char == mark => out.extend(['\\', mark]),
            ' ' => out.push(' '),
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{feff}' => escape(out, char),
            _ if char.is_control() || char.is_whitespace() => escape(out, char),
            _ => out.push(char),
        }
    }
    out.push(mark);
}

fn escape(out: &mut String, char: char) {
    let code = u32::from(char);
    let _ = if code < 256 { write!(out, "\\x{code:02x}") } else { write!(out, "\\u{code:04x}") };
}
