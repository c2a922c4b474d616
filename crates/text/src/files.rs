//! Reading the files of a model folder, with size caps and errors that name the file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, limits};

/// The named tokens that templates may print.
pub(crate) const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];

/// Reads a whole file; `None` when there is none.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let fail = |source| Error::Read { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let size = file.metadata().map_err(fail)?.len();
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path: path.into(), size, limit });
    }
    Ok(Some(bytes))
}

pub(crate) fn invalid(path: &Path, reason: impl ToString) -> Error {
    Error::Invalid { path: path.into(), reason: reason.to_string() }
}

/// Reads a JSON object; an empty one when there is no file.
pub(crate) fn object(path: &Path) -> Result<Map<String, Value>, Error> {
    let Some(bytes) = read(path, limits::CONFIG_BYTES)? else { return Ok(Map::new()) };
    serde_json::from_slice(&bytes).map_err(|error| invalid(path, error))
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
    let map = object(&dir.join("special_tokens_map.json"))?;
    let find = |name: &str| {
        let text = |from: &Map<String, Value>| from.get(name).and_then(token_text).map(str::to_owned);
        text(&config).or_else(|| text(&map))
    };
    Ok(NAMED.iter().filter_map(|&name| Some((name, find(name)?))).collect())
}

/// The end-of-sequence ids of one `config.json`-like file.
pub(crate) fn eos_ids(path: &Path) -> Result<Vec<u32>, Error> {
    let config = object(path)?;
    let text_config = config.get("text_config").and_then(|inner| inner.get("eos_token_id"));
    let ids = match config.get("eos_token_id").filter(|ids| !ids.is_null()).or(text_config) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    ids.iter()
        .map(|value| {
            id(value).ok_or_else(|| invalid(path, format!("eos_token_id {value} is not a token id")))
        })
        .collect()
}
