//! Tokenizers that come as other files than `tokenizer.json`: each is rewritten as that file would be, so
//! that one loader checks and reads all of them. The rules are those of transformers' converters.

mod bytes;
mod sentencepiece;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::files::{self, invalid};
use crate::{Error, limits};

/// The bytes of a `tokenizer.json` for the folder, and the file that they were read from.
pub(crate) fn read(dir: &Path) -> Result<(PathBuf, Vec<u8>), Error> {
    let path = dir.join("tokenizer.json");
    if let Some(bytes) = files::read(&path, limits::TOKENIZER_BYTES)? {
        return Ok((path, bytes));
    }
    let config = files::object(&dir.join("tokenizer_config.json"))?;
    for (name, convert) in SOURCES {
        let source = dir.join(name);
        let Some(bytes) = files::read(&source, limits::TOKENIZER_BYTES)? else { continue };
        let tokenizer = convert(dir, &bytes, &config).map_err(|reason| match reason {
            Failure::Reason(reason) => invalid(&source, reason),
            Failure::Error(error) => error,
        })?;
        let bytes = serde_json::to_vec(&tokenizer).map_err(|error| invalid(&source, error))?;
        return Ok((source, bytes));
    }
    Err(Error::NoTokenizer { dir: dir.into() })
}

/// Whether a folder has a file that [`Tokenizer::open`](crate::Tokenizer::open) reads.
pub fn has_tokenizer(dir: &Path) -> bool {
    let names = SOURCES.iter().map(|(name, _)| *name).chain(["tokenizer.json"]);
    names.into_iter().any(|name| dir.join(name).is_file())
}

/// Why a file could not be converted.
enum Failure {
    Reason(String),
    Error(Error),
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure::Reason(reason)
    }
}

type Convert = fn(&Path, &[u8], &Map<String, Value>) -> Result<Value, Failure>;

/// Files in the order of preference, and how they are read.
const SOURCES: [(&str, Convert); 4] = [
    ("tiktoken.model", bytes::kimi),
    ("hy.tiktoken", bytes::hunyuan),
    ("vocab.json", bytes::vocabulary_and_merges),
    ("tokenizer.model", |_, bytes, config| Ok(sentencepiece::convert(bytes, config)?)),
];

/// The class of the tokenizer, without the ending that only says how transformers runs it.
fn class(config: &Map<String, Value>) -> &str {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    class.strip_suffix("Fast").unwrap_or(class)
}

/// A token of `added_tokens`.
fn added(id: u64, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "special": special, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false,
    })
}

/// The tokens that `added_tokens_decoder` of a `tokenizer_config.json` lists, by id.
pub(crate) fn added_tokens(config: &Map<String, Value>) -> Vec<(u64, Value)> {
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object);
    let token = |(id, token): (&String, &Value)| {
        let (id, content) = (id.parse().ok()?, files::token_text(token)?);
        let mut value = added(id, content, false);
        for key in ["special", "single_word", "lstrip", "rstrip", "normalized"] {
            if let Some(flag) = token.get(key).and_then(Value::as_bool) {
                value[key] = flag.into();
            }
        }
        Some((id, value))
    };
    let mut tokens: Vec<(u64, Value)> = listed.into_iter().flatten().filter_map(token).collect();
    tokens.sort_by_key(|(id, _)| *id);
    tokens
}
