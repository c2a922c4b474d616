//! Values in the two notations that are almost JSON: Python literals, and objects with bare keys and their
//! own quotation mark.

use serde_json::{Map, Number, Value};

use super::ToolCall;
use super::body::call;
use crate::limits;

/// A text that is one Python literal.
pub(super) fn python_literal(text: &str) -> Option<Value> {
    let mut reader = Reader::new(text, None);
    let value = reader.value(0)?;
    reader.rest().trim_start().is_empty().then_some(value)
}

/// Reads calls and values from the front of a text.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// A mark around strings in addition to the usual two; a dialect with one allows words without quotes.
    quote: Option<&'static str>,
}

impl<'t> Reader<'t> {
    pub fn new(text: &'t str, quote: Option<&'static str>) -> Reader<'t> {
        Reader { text, at: 0, quote }
    }

    /// `[f(a=1), g()]`, also without the brackets. `take` gets calls and where they end, and may stop.
    pub fn python_calls(mut self, mut take: impl FnMut(Vec<ToolCall>, usize) -> bool) {
        let listed = self.eat("[");
        let mut list = Vec::new();
        while let Some(call) = self.python_call() {
            list.push(call);
            let more = self.eat(",") || self.eat(";");
            if list.len() > limits::CALLS || (!listed && !take(std::mem::take(&mut list), self.at)) {
                return;
            }
            if listed && (!more || self.rest().trim_start().starts_with(']')) {
                break;
            }
        }
        // A list that does not end is the beginning of another one.
        if listed && !list.is_empty() && self.eat("]") {
            take(list, self.at);
        }
    }

    fn python_call(&mut self) -> Option<ToolCall> {
        let name = self.word(".-")?;
        self.bracket("(")?;
        let mut arguments = Map::new();
        while !self.eat(")") {
            let key = self.word("")?;
            self.bracket("=")?;
            arguments.insert(key.into(), self.value(0)?);
            if !self.eat(",") && !self.rest().trim_start().starts_with(')') {
                return None;
            }
        }
        call(name, &Value::Object(arguments).to_string())
    }

    /// `call:f{a:1}`, one after another.
    pub fn brace_calls(mut self, mut take: impl FnMut(Vec<ToolCall>, usize) -> bool) {
        while self.eat("call:") {
            let Some(name) = self.word(".-") else { return };
            let arguments = if self.rest().starts_with('{') { self.value(0) } else { None };
            let found = arguments.and_then(|arguments| call(name, &arguments.to_string()));
            if !found.is_some_and(|call| take(vec![call], self.at)) {
                return;
            }
            self.eat(",");
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > limits::VALUE_DEPTH {
            return None;
        }
        if let Some(text) = self.string() {
            return text.map(Value::String);
        }
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.eat(open) {
                let mut items = Vec::new();
                while !self.eat(close) {
                    items.push(self.value(depth + 1)?);
                    self.comma(close)?;
                }
                return Some(Value::Array(items));
            }
        }
        if self.eat("{") {
            let mut map = Map::new();
            while !self.eat("}") {
                let key = match self.string() {
                    Some(key) => key?,
                    None => self.word("-.$").filter(|_| self.quote.is_some())?.to_owned(),
                };
                self.bracket(":")?;
                map.insert(key, self.value(depth + 1)?);
                self.comma("}")?;
            }
            return Some(Value::Object(map));
        }
        let rest = self.rest();
        let length = rest.find([',', ']', '}', ')', '\n']).unwrap_or(rest.len());
        self.at += length;
        self.bare(rest[..length].trim())
    }

    /// A number, one of the words for true, false and nothing, or text without quotes.
    fn bare(&self, word: &str) -> Option<Value> {
        Some(match word {
            "True" | "true" => true.into(),
            "False" | "false" => false.into(),
            "None" | "null" => Value::Null,
            _ => match serde_json::from_str::<Number>(word) {
                Ok(number) => number.into(),
                Err(_) if self.quote.is_some() && !word.is_empty() => word.into(),
                Err(_) => return None,
            },
        })
    }

    /// A string, if one starts here; inside `None` if it does not end or has an unknown escape.
    fn string(&mut self) -> Option<Option<String>> {
        if let Some(quote) = self.quote
            && self.eat(quote)
        {
            let found = self.rest().split_once(quote);
            return Some(found.map(|(text, _)| {
                self.at += text.len() + quote.len();
                text.to_owned()
            }));
        }
        let quote = ['"', '\''].into_iter().find(|quote| self.eat(quote.encode_utf8(&mut [0; 4])))?;
        Some(self.python_string(quote))
    }

    fn python_string(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, char)) = chars.next() {
            if char == quote {
                self.at += at + 1;
                return Some(text);
            }
            if char != '\\' {
                text.push(char);
                continue;
            }
            let escape = chars.next()?.1;
            let mut hex = |digits: usize| -> Option<u32> {
                let mut code = 0;
                for _ in 0..digits {
                    code = code << 4 | chars.next()?.1.to_digit(16)?;
                }
                Some(code)
            };
            match escape {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                '\n' => {}
                '\\' | '\'' | '"' | '/' => text.push(escape),
                'x' => text.push(char::from_u32(hex(2)?)?),
                'U' => text.push(char::from_u32(hex(8)?)?),
                'u' => match hex(4)? {
                    high @ 0xD800..0xDC00 => {
                        (chars.next()?.1 == '\\' && chars.next()?.1 == 'u').then_some(())?;
                        let mut low = 0;
                        for _ in 0..4 {
                            low = low << 4 | chars.next()?.1.to_digit(16)?;
                        }
                        let low = low.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                        text.push(char::from_u32(0x10000 + ((high - 0xD800) << 10) + low)?);
                    }
                    code => text.push(char::from_u32(code)?),
                },
                // Python leaves an unknown escape as it is.
                _ => text.extend(['\\', escape]),
            }
        }
        None
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Skips white space and, if it is there, a mark.
    fn eat(&mut self, mark: &str) -> bool {
        let rest = self.rest().trim_start();
        let found = rest.strip_prefix(mark);
        self.at = self.text.len() - found.unwrap_or(rest).len();
        found.is_some()
    }

    fn bracket(&mut self, mark: &str) -> Option<()> {
        self.eat(mark).then_some(())
    }

    /// A comma, or the closing bracket ahead.
    fn comma(&mut self, close: &str) -> Option<()> {
        (self.eat(",") || self.rest().starts_with(close)).then_some(())
    }

    /// A name of letters, digits, `_` and some more characters.
    fn word(&mut self, more: &str) -> Option<&'t str> {
        let rest = self.rest().trim_start();
        let ends = |char: char| !char.is_alphanumeric() && char != '_' && !more.contains(char);
        let length = rest.find(ends).unwrap_or(rest.len());
        self.at = self.text.len() - rest.len() + length;
        (length > 0).then(|| &rest[..length])
    }
}
