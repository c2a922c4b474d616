//! Reading the files of a model folder, with size caps and errors that name the file.

use std::path::Path;

use amoeba_checkpoint::{read_object, read_small};
use serde_json::{Map, Value};

use crate::{Error, limits};

/// The named tokens that templates may print.
pub(crate) const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];

/// Reads a whole file; `None` when there is none.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    Ok(read_small(path, usize::try_from(limit).unwrap_or(usize::MAX))?)
}

pub(crate) fn invalid(path: &Path, reason: impl ToString) -> Error {
    Error::Invalid { path: path.into(), reason: reason.to_string() }
}

/// Reads a JSON object; an empty one when there is no file.
pub(crate) fn object(path: &Path) -> Result<Map<String, Value>, Error> {
    Ok(read_object(path)?.unwrap_or_default())
}

/// A token given as `"text"` or `{"content": "text"}`.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A template: where it came from, for messages, and its source.
pub(crate) type Source = (String, String);

/// The templates of a model folder: the default one and the one for chats with tools.
pub(crate) fn templates(dir: &Path) -> Result<Option<(Source, Option<Source>)>, Error> {
    let from_file = |name: &str| -> Result<Option<Source>, Error> {
        let path = dir.join(name);
        let Some(bytes) = read(&path, limits::TEMPLATE_BYTES)? else { return Ok(None) };
        let source = String::from_utf8(bytes).map_err(|error| invalid(&path, error))?;
        Ok(Some((name.to_owned(), source)))
    };
    let tool_use = from_file("additional_chat_templates/tool_use.jinja")?;
    if let Some(default) = from_file("chat_template.jinja")? {
        return Ok(Some((default, tool_use)));
    }
    for name in ["tokenizer_config.json", "chat_template.json"] {
        let path = dir.join(name);
        if let Some((default, other)) = configured(&path, object(&path)?.get("chat_template"))? {
            let named = |source| (format!("{name} chat_template"), source);
            return Ok(Some((named(default), tool_use.or(other.map(named)))));
        }
    }
    Ok(None)
}

/// The default and the tool variant of a `chat_template`: text, a map of names, or a list of named ones.
fn configured(path: &Path, value: Option<&Value>) -> Result<Option<(String, Option<String>)>, Error> {
    let named: Vec<(&str, Option<&str>)> = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(source)) => return Ok(Some((source.clone(), None))),
        Some(Value::Array(list)) => {
            let text = Value::as_str;
            let named = list.iter().map(|entry| (entry.get("name"), entry.get("template")));
            named
                .map(|(name, source)| (name.and_then(text).unwrap_or_default(), source.and_then(text)))
                .collect()
        }
        Some(Value::Object(map)) => map.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect(),
        Some(_) => return Err(invalid(path, "chat_template is neither text, nor a list, nor a map")),
    };
    let variant = |wanted| named.iter().find(|(name, _)| *name == wanted).and_then(|(_, text)| *text);
    let default = variant("default").or_else(|| named.first()?.1);
    let default = default.ok_or_else(|| invalid(path, "its list of chat templates holds none"))?;
    Ok(Some((default.to_owned(), variant("tool_use").map(str::to_owned))))
}

/// The named tokens of `tokenizer_config.json`, completed from `special_tokens_map.json`.
pub(crate) fn named_tokens(dir: &Path) -> Result<Vec<(&'static str, String)>, Error> {
    let config = object(&dir.join("tokenizer_config.json"))?;
    // It only completes the other: a broken one is not needed.
    let map = object(&dir.join("special_tokens_map.json")).unwrap_or_default();
    let find = |name: &str| {
        let text = |from: &Map<String, Value>| from.get(name).and_then(token_text).map(str::to_owned);
        text(&config).or_else(|| text(&map))
    };
    Ok(NAMED.iter().filter_map(|&name| Some((name, find(name)?))).collect())
}

/// The end-of-sequence ids of one `config.json`-like file: a number, a list, a list of lists, whole floats,
/// or digits in quotes; writers of all of these exist.
pub(crate) fn eos_ids(path: &Path) -> Result<Vec<u32>, Error> {
    let config = object(path)?;
    let text_config = config.get("text_config").and_then(|inner| inner.get("eos_token_id"));
    let mut ids = Vec::new();
    if let Some(value) = config.get("eos_token_id").filter(|ids| !ids.is_null()).or(text_config) {
        collect_ids(value, &mut ids)
            .map_err(|odd| invalid(path, format!("eos_token_id {odd} is not a token id")))?;
    }
    Ok(ids)
}

/// Gathers the ids in a value of bounded depth. The error is what is no id.
fn collect_ids<'a>(value: &'a Value, ids: &mut Vec<u32>) -> Result<(), &'a Value> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..4e9).contains(number);
    let id = match value {
        Value::Null => return Ok(()),
        Value::Array(items) => return items.iter().try_for_each(|item| collect_ids(item, ids)),
        Value::Number(number) => number.as_f64().filter(whole).map(|number| number as u32),
        Value::String(digits) => digits.trim().parse().ok(),
        Value::Bool(_) | Value::Object(_) => None,
    };
    ids.push(id.ok_or(value)?);
    Ok(())
}
