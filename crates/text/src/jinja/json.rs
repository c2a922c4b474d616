//! The `tojson` filter as transformers has it: Python's `json.dumps` without ASCII or HTML escaping, keys in
//! their order.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, State};

use super::{print, refuse};
use crate::limits;

/// `tojson(value, ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(crate) fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = indent.filter(|indent| !indent.is_none());
    let separators: Option<Value> = options.get("separators")?;
    let separators = separators.filter(|separators| !separators.is_none());
    let mut writer = Writer {
        out: String::new(),
        indent: indent.as_ref().map(indent_text).transpose()?,
        item: if indent.is_some() { "," } else { ", " }.into(),
        key: ": ".into(),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    if let Some(separators) = separators {
        writer.item = separators.get_item_by_index(0)?.to_string();
        writer.key = separators.get_item_by_index(1)?.to_string();
    }
    options.assert_all_used()?;
    writer.value(value, 0)?;
    state.consume_fuel(writer.out.len() as u64 / 16)?;
    Ok(Value::from(writer.out))
}

fn indent_text(indent: &Value) -> Result<String, Error> {
    match (indent.as_str(), indent.as_i64()) {
        (Some(text), _) if text.len() <= 64 => Ok(text.into()),
        (None, Some(width @ 0..=64)) => Ok(" ".repeat(width as usize)),
        _ => Err(refuse("tojson takes an indent of at most 64 spaces")),
    }
}

struct Writer {
    out: String,
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > limits::JSON_DEPTH {
            return Err(refuse(format!("tojson stops at {} levels of nesting", limits::JSON_DEPTH)));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked();
                self.container(['[', ']'], depth, items.map(|item| Ok((None, item?))))?;
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                if self.sort {
                    keys.sort();
                }
                let entry = |key: Value| value.get_item(&key).map(|item| (Some(key), item));
                self.container(['{', '}'], depth, keys.into_iter().map(entry))?;
            }
            kind => return Err(refuse(format!("{kind} is not JSON serializable"))),
        }
        if self.out.len() > limits::OUTPUT_BYTES {
            return Err(refuse(format!("tojson stops at {} bytes", limits::OUTPUT_BYTES)));
        }
        Ok(())
    }

    fn container(
        &mut self,
        brackets: [char; 2],
        depth: usize,
        items: impl Iterator<Item = Result<(Option<Value>, Value), Error>>,
    ) -> Result<(), Error> {
        self.out.push(brackets[0]);
        let mut empty = true;
        for item in items {
            let (key, item) = item?;
            if !std::mem::take(&mut empty) {
                self.out.push_str(&self.item);
            }
            self.line(depth + 1);
            if let Some(key) = key {
                match key.kind() {
                    ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                    ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
                    ValueKind::None => self.string("null"),
                    _ => self.string(&number(&key)),
                }
                self.out.push_str(&self.key);
            }
            self.value(&item, depth + 1)?;
        }
        if !empty {
            self.line(depth);
        }
        self.out.push(brackets[1]);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                char if char < ' ' || (self.ascii && char > '~') => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                char => self.out.push(char),
            }
        }
        self.out.push('"');
    }
}

/// A number as Python's `json` writes it.
fn number(value: &Value) -> String {
    match print::number(value) {
        text if text == "nan" => "NaN".into(),
        text => text.replace("inf", "Infinity"),
    }
}
