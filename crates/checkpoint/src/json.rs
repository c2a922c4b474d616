//! The one reader for JSON objects of a model folder: bounded depth and size, duplicate keys refused, lenient
//! where the writers in use are: a byte order mark, and numbers that JSON does not have.

use crate::Error;
use crate::error::shown;
use crate::small::{self, read_small};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// Longest JSON file read into a tree (a large `tokenizer_config.json` has about 1 MiB).
const MAX_BYTES: usize = 8 << 20;
/// Deepest nesting, in objects and lists.
const MAX_DEPTH: usize = 64;
/// Most values in one file. A value costs up to some 350 bytes of memory, so this also bounds the tree. The
/// largest published files, lists of ten thousand added tokens, have some 90,000.
const MAX_VALUES: usize = 150_000;
/// Words for numbers that JSON does not have.
const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Reads the JSON object in a small file of a model folder; `None` if there is no such file. `NaN`,
/// `Infinity` and `-Infinity`, bare or tagged as transformers writes them (`{"__float__": "Infinity"}`), come
/// out as these words.
///
/// # Errors
/// As [`read_small`](crate::read_small), and [`Error::Config`] when it is not JSON, not an object, longer
/// than 8 MiB, nested deeper than 64 levels, or has a key twice.
pub fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, Error> {
    let Some(bytes) = read_small(path, MAX_BYTES)? else { return Ok(None) };
    let (file, bytes) = (small::name(path), without_mark(&bytes));
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Error::config(
            file.as_str(),
            format!("is not UTF-8 text (byte {} of {})", e.valid_up_to(), bytes.len()),
        )
    })?;
    object(&file, text).map(Some)
}

/// Without the `EF BB BF` that some editors put in front of text.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Parses the object in `text`; `file` is for messages.
pub(crate) fn object(file: &str, text: &str) -> Result<Map<String, Value>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::config(file, format!("is {} bytes long, the limit is {MAX_BYTES}", text.len())));
    }
    let text = quote_python_literals(text);
    let mut left = MAX_VALUES;
    let mut reader = serde_json::Deserializer::from_str(&text);
    let value = Node { left: &mut left, depth: 0 }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| Error::config(file, format!("is not valid JSON: {}", shown(&e.to_string()))))?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Error::config(file, "is valid JSON but not an object at the top")),
    }
}

/// Python's `json` module writes `NaN`, `Infinity` and `-Infinity` bare, which is not JSON but does occur in
/// published files (`"time_step_limit": [0.0, Infinity]`). They become strings: harmless where nobody reads
/// the key, and an error that shows the word where a number is wanted.
fn quote_python_literals(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let (mut rest, mut quoted) = (text, false);
    while let Some(c) = rest.chars().next() {
        let literal = WORDS.into_iter().find(|l| !quoted && rest.starts_with(l));
        let taken = match (literal, c) {
            (Some(word), _) => {
                out.push('"');
                out.push_str(word);
                out.push('"');
                rest = &rest[word.len()..];
                continue;
            }
            // An escape and the character it escapes travel together, so `\"` does not end a string.
            (None, '\\') => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, _) => c.len_utf8(),
        };
        quoted ^= c == '"';
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Cow::Owned(out)
}

/// One value below the top, with what is left of the budgets.
struct Node<'a> {
    left: &'a mut usize,
    depth: usize,
}

impl Node<'_> {
    fn child<E: de::Error>(&mut self) -> Result<Node<'_>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if *self.left == 0 {
            return Err(E::custom(format!("more than {MAX_VALUES} values")));
        }
        *self.left -= 1;
        Ok(Node { left: self.left, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(self.child()?)? {
            list.push(value);
        }
        *self.left += 1; // the last child was not there
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("key `{}` appears twice", shown(&key))));
            }
            let value = entries.next_value_seed(self.child()?)?;
            map.insert(key, value);
        }
        // As transformers writes a number that JSON does not have, from version 5 on.
        if let (1, Some(Value::String(word))) = (map.len(), map.get("__float__"))
            && WORDS.contains(&word.as_str())
        {
            return Ok(Value::from(word.as_str()));
        }
        Ok(Value::Object(map))
    }
}
