//! Typed, bounded reads from JSON objects, with the key path in every message.

use crate::error::shown;
use crate::{Error, folder, json};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::Path;

/// Longest list a typed reader accepts.
const MAX_LIST: usize = 65_536;

/// A JSON object that knows its file and key path. A key whose value is `null` counts as absent.
#[derive(Clone, Debug)]
pub struct Config {
    file: String,
    /// Dotted key path of this object, with a trailing dot; empty at the top.
    prefix: String,
    map: Map<String, Value>,
}

impl Config {
    /// Parses the object in `text`; `file` is used in messages only.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not JSON, not an object, too large, nested deeper than 64 levels, or has
    /// a key twice.
    pub fn parse(file: &str, text: &str) -> Result<Config, Error> {
        Ok(Config { file: file.to_owned(), prefix: String::new(), map: json::object(file, text)? })
    }

    /// Reads `file` from `dir`; `None` if it is not there. Use it to look at a folder that has no weights.
    ///
    /// # Errors
    /// As [`Config::parse`], or [`Error::Io`].
    pub fn read(dir: &Path, file: &str) -> Result<Option<Config>, Error> {
        folder::check_name("requested file", file)?;
        let map = json::read_object(&dir.join(file))?;
        Ok(map.map(|map| Config { file: file.to_owned(), prefix: String::new(), map }))
    }

    /// The same with what the object in `text` says of keys that are absent or null.
    ///
    /// # Errors
    /// `text` is not a JSON object.
    pub fn or(mut self, text: &str) -> Result<Config, Error> {
        for (key, value) in json::object(&self.file, text)? {
            if !self.has(&key) {
                self.map.insert(key, value);
            }
        }
        Ok(self)
    }

    /// True when the key is present and not null.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The object as parsed.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.map
    }

    /// File and key path, as messages show them.
    pub fn place(&self, key: &str) -> String {
        format!("{}: `{}{}`", self.file, shown(&self.prefix), shown(key))
    }

    /// A required integer in `range`; `128.0` counts as 128.
    pub fn usize(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, Error> {
        let wanted = format!("an integer from {} to {}", range.start(), range.end());
        self.to_usize(key, self.required(key, &wanted)?, &range)
    }

    /// An integer in `range`, or `default` when absent.
    pub fn usize_or(&self, key: &str, default: usize, range: RangeInclusive<usize>) -> Result<usize, Error> {
        self.get(key).map_or(Ok(default), |v| self.to_usize(key, v, &range))
    }

    /// A required finite number in `range`.
    pub fn f32(&self, key: &str, range: RangeInclusive<f32>) -> Result<f32, Error> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.to_f32(key, self.required(key, &wanted)?, &range)
    }

    /// A finite number in `range`, or `default` when absent.
    pub fn f32_or(&self, key: &str, default: f32, range: RangeInclusive<f32>) -> Result<f32, Error> {
        self.get(key).map_or(Ok(default), |v| self.to_f32(key, v, &range))
    }

    /// A truth value, or `default` when absent.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A string, if present.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| self.wrong(key, v, "a string"))).transpose()
    }

    /// A list of integers, each in `range`, if present; a single integer counts as a list of one.
    pub fn usizes(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<Vec<usize>>, Error> {
        self.list(key, |v| self.to_usize(key, v, &range))
    }

    /// A list of finite numbers, each in `range`, if present; a single number counts as a list of one.
    pub fn f32s(&self, key: &str, range: RangeInclusive<f32>) -> Result<Option<Vec<f32>>, Error> {
        self.list(key, |v| self.to_f32(key, v, &range))
    }

    /// A list of strings, if present; a single string counts as a list of one.
    pub fn strs(&self, key: &str) -> Result<Option<Vec<&str>>, Error> {
        self.list(key, |v| v.as_str().ok_or_else(|| self.wrong(key, v, "a string")))
    }

    /// A nested object, if present, with its path kept for messages.
    pub fn object(&self, key: &str) -> Result<Option<Config>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Config { file: self.file.clone(), prefix, map: map.clone() }))
            }
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// The error for a value that is legal by itself but contradicts another; `what` says found and expected.
    pub fn invalid(&self, key: &str, what: impl Into<String>) -> Error {
        Error::config(self.place(key), what)
    }

    /// The error for a value that is legal but not implemented; `what` says what is, and what to do.
    pub fn unsupported(&self, key: &str, what: impl Into<String>) -> Error {
        Error::unsupported(self.place(key), what)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn required(&self, key: &str, wanted: &str) -> Result<&Value, Error> {
        self.get(key).ok_or_else(|| Error::config(self.place(key), format!("is missing, expected {wanted}")))
    }

    fn list<'a, T>(
        &'a self,
        key: &str,
        read: impl Fn(&'a Value) -> Result<T, Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() > MAX_LIST => {
                let what = format!("has {} entries, the limit is {MAX_LIST}", items.len());
                Err(Error::config(self.place(key), what))
            }
            Some(Value::Array(items)) => items.iter().map(read).collect::<Result<_, _>>().map(Some),
            Some(single) => read(single).map(|v| Some(vec![v])),
        }
    }

    fn to_usize(&self, key: &str, value: &Value, range: &RangeInclusive<usize>) -> Result<usize, Error> {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: above it a float no longer names one integer
        let integer = value.as_u64().or_else(|| {
            let float = value.as_f64().filter(|f| f.fract() == 0.0 && (0.0..=EXACT).contains(f))?;
            Some(float as u64)
        });
        integer.and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n)).ok_or_else(|| {
            self.wrong(key, value, &format!("an integer from {} to {}", range.start(), range.end()))
        })
    }

    fn to_f32(&self, key: &str, value: &Value, range: &RangeInclusive<f32>) -> Result<f32, Error> {
        let number = value.as_f64().map(|v| v as f32).filter(|v| v.is_finite() && range.contains(v));
        number.ok_or_else(|| {
            self.wrong(key, value, &format!("a number from {} to {}", range.start(), range.end()))
        })
    }

    /// The error for a value of the wrong type or size.
    pub(crate) fn wrong(&self, key: &str, value: &Value, wanted: &str) -> Error {
        let found = match value {
            Value::Array(items) => format!("a list of {}", items.len()),
            Value::Object(map) => format!("an object of {} keys", map.len()),
            Value::String(text) => format!("\"{}\"", shown(text)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        };
        Error::config(self.place(key), format!("is {found}, expected {wanted}"))
    }
}
