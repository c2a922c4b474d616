//! What of a `tokenizer.json` is refused before the tokenizers crate sees it: what it would index, unwrap or
//! allocate without looking, and steps that make a short text grow without bound.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::limits;

/// The parts of the file that are looked at.
#[derive(Deserialize)]
pub(crate) struct Head {
    #[serde(default)]
    pub added_tokens: Vec<ListedToken>,
    pub model: ModelHead,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

#[derive(Deserialize)]
pub(crate) struct ListedToken {
    pub id: u32,
    pub content: String,
}

#[derive(Deserialize)]
pub(crate) struct ModelHead {
    #[serde(default)]
    pub unk_token: Option<String>,
    #[serde(default)]
    pub unk_id: Option<u32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

impl Head {
    /// Refuses what is known to panic, to hang or to take all memory.
    pub fn check(&self) -> Result<(), String> {
        self.check_added()?;
        let prefix = self.model.continuing_subword_prefix.as_deref().unwrap_or_default();
        if self.model.kind.as_deref() == Some("BPE") && !prefix.is_empty() {
            return Err(format!("BPE with continuing_subword_prefix {prefix:?} is not supported"));
        }
        for (place, part) in [
            ("normalizer", &self.normalizer),
            ("pre_tokenizer", &self.pre_tokenizer),
            ("decoder", &self.decoder),
        ] {
            let growth = growth(part, 0).map_err(|reason| format!("its {place} {reason}"))?;
            if growth > limits::TEXT_GROWTH {
                return Err(format!(
                    "its {place} may make a text {growth:.0} times longer, at most {} are accepted",
                    limits::TEXT_GROWTH
                ));
            }
        }
        Ok(())
    }

    fn check_added(&self) -> Result<(), String> {
        let (mut ids, mut contents) = (HashMap::new(), HashMap::new());
        for ListedToken { id, content } in &self.added_tokens {
            let shown = cut(content);
            // Building the automaton that finds them takes the square of the longest.
            if content.len() > limits::TOKEN_BYTES {
                let (bytes, most) = (content.len(), limits::TOKEN_BYTES);
                return Err(format!(
                    "added token {shown:?} ({id}) has {bytes} bytes, at most {most} are accepted"
                ));
            }
            if let Some(other) = ids.insert(id, content).filter(|other| *other != content) {
                return Err(format!("added tokens {:?} and {shown:?} both have id {id}", cut(other)));
            }
            if let Some(other) = contents.insert(content, id).filter(|other| *other != id) {
                return Err(format!("added token {shown:?} has two ids, {other} and {id}"));
            }
        }
        Ok(())
    }
}

/// The beginning of a text that an error shows.
pub(crate) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// How many times longer a step may make a text; steps one after another multiply.
fn growth(step: &Value, depth: usize) -> Result<f64, String> {
    if depth > limits::STEP_DEPTH {
        return Err(format!("nests more than {} steps", limits::STEP_DEPTH));
    }
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    Ok(match step["type"].as_str().unwrap_or_default() {
        "Sequence" => {
            let lists = ["normalizers", "pretokenizers", "decoders"].map(|key| step[key].as_array());
            let mut product = 1.0;
            for step in lists.into_iter().flatten().flatten() {
                product *= growth(step, depth + 1)?;
            }
            product
        }
        "Replace" => {
            let pattern = step["pattern"]["String"].as_str();
            if pattern == Some("") {
                return Err("replaces the empty text".into());
            }
            (text("content").len() as f64 / pattern.map_or(1.0, |pattern| pattern.len() as f64)).max(1.0)
        }
        "Prepend" if text("prepend").len() > limits::TOKEN_BYTES => {
            let bytes = text("prepend").len();
            return Err(format!("prepends {bytes} bytes, at most {} are accepted", limits::TOKEN_BYTES));
        }
        "FixedLength" if step["length"] == 0 => return Err("cuts text into pieces of length 0".into()),
        "Precompiled" => {
            charsmap(text("precompiled_charsmap"))?;
            1.0
        }
        _ => 1.0,
    })
}

/// A charsmap is the size of a double array, the array, and texts that end in zero (spm_precompiled).
fn charsmap(encoded: &str) -> Result<(), String> {
    let wrong = || "has a precompiled_charsmap that does not hold together".to_owned();
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| wrong())?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
    let size = u32::from_le_bytes(*size) as usize;
    let array = rest.get(..size).filter(|_| size > 0 && size.is_multiple_of(4)).ok_or_else(wrong)?;
    // A node leads, by exclusive or with its place, to a block of 256 others; a leaf gives a place in the
    // texts.
    let texts = &rest[size..];
    std::str::from_utf8(texts).map_err(|_| wrong())?;
    let nodes = array.as_chunks::<4>().0;
    for (place, node) in nodes.iter().enumerate() {
        let node = u32::from_le_bytes(*node);
        let leaf = node >> 31 == 1;
        let offset = ((node >> 10) << ((node & (1 << 9)) >> 6)) as usize;
        let inside = if leaf {
            ((node & 0x7fff_ffff) as usize) <= texts.len()
        } else {
            (place ^ offset) | 0xff < nodes.len().next_multiple_of(256)
        };
        if !inside {
            return Err(wrong());
        }
    }
    Ok(())
}
