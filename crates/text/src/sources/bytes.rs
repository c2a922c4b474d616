//! Vocabularies of byte sequences: `vocab.json` with `merges.txt`, and files of tiktoken.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::{Failure, added, added_tokens, class};
use crate::{files, limits};

/// How GPT-2 cuts text before it merges.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Qwen, and Hunyuan after it.
const QWEN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Kimi and Moonlight: runs of Han, then words by their capitals.
const KIMI: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// What a class of tokenizers keeps in code instead of a file.
struct Rule {
    class: &'static str,
    pattern: &'static str,
    /// Text is composed (Unicode NFC) first.
    composed: bool,
    /// Special tokens after the vocabulary, in order; `#` stands for a count from the number given.
    special: &'static [(&'static str, usize)],
    /// What `#` counts from: the id of the token, or 0.
    by_id: bool,
}

const RULES: [Rule; 4] = [
    Rule { class: "GPT2Tokenizer", pattern: GPT2, composed: false, special: &[], by_id: false },
    Rule { class: "Qwen2Tokenizer", pattern: QWEN, composed: true, special: &[], by_id: false },
    Rule {
        class: "TikTokenTokenizer",
        pattern: KIMI,
        composed: false,
        special: &[("<|reserved_token_#|>", 256)],
        by_id: true,
    },
    Rule {
        class: "HYTokenizer",
        pattern: QWEN,
        composed: true,
        special: &[
            ("<|startoftext|>", 1),
            ("<|endoftext|>", 1),
            ("<|bos|>", 1),
            ("<|eos|>", 1),
            ("<|pad|>", 1),
            ("<|extra_#|>", 205),
        ],
        by_id: false,
    },
];

/// The rule of the class; `usual` is that of the file where none is named.
fn rule(config: &Map<String, Value>, usual: &str) -> Result<&'static Rule, String> {
    let class = Some(class(config)).filter(|class| !class.is_empty()).unwrap_or(usual);
    let known = RULES.map(|rule| rule.class).join(", ");
    RULES.iter().find(|rule| rule.class == class).ok_or_else(|| {
        format!(
            "the tokenizer_class {class:?} of tokenizer_config.json keeps in code how it cuts text, and only \
             {known} are known; a tokenizer.json, as transformers' save_pretrained writes it, is read for any"
        )
    })
}

/// `vocab.json`, with `merges.txt` beside it.
pub fn vocabulary_and_merges(
    dir: &Path,
    bytes: &[u8],
    config: &Map<String, Value>,
) -> Result<Value, Failure> {
    let rule = rule(config, "")?;
    let vocabulary: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| Failure::Reason(error.to_string()))?;
    let path = dir.join("merges.txt");
    let merges = files::read(&path, limits::TOKENIZER_BYTES).map_err(Failure::Error)?;
    let merges = merges.ok_or_else(|| "merges.txt, which belongs to it, is missing".to_owned())?;
    let merges = String::from_utf8(merges)
        .map_err(|_| Failure::Error(files::invalid(&path, "it is not UTF-8 text")))?;
    let pairs: Vec<Value> = merges
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.trim().is_empty())
        .map(|line| line.trim_end_matches('\r').into())
        .collect();
    Ok(tokenizer(rule, vocabulary, pairs, false, added_tokens(config)))
}

/// Lines of a token in base 64 and its rank, as Kimi has them.
pub fn kimi(_dir: &Path, bytes: &[u8], config: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(tiktoken(rule(config, "TikTokenTokenizer")?, bytes, config)?)
}

/// The same of Hunyuan.
pub fn hunyuan(_dir: &Path, bytes: &[u8], config: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(tiktoken(rule(config, "HYTokenizer")?, bytes, config)?)
}

fn tiktoken(rule: &Rule, bytes: &[u8], config: &Map<String, Value>) -> Result<Value, String> {
    let mut ranks: HashMap<Vec<u8>, u32> = HashMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let mut parts = line.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty());
        let Some(token) = parts.next() else { continue };
        let rank = parts.next().and_then(|rank| std::str::from_utf8(rank).ok()?.parse().ok());
        let found = BASE64_STANDARD.decode(token).ok().zip(rank).filter(|(token, _)| !token.is_empty());
        let Some((token, rank)) = found.filter(|_| parts.next().is_none()) else {
            return Err(format!("line {} is not a token in base 64 and its rank", index + 1));
        };
        if token.len() > limits::TOKEN_BYTES {
            return Err(format!("the token of line {} has {} bytes", index + 1, token.len()));
        }
        ranks.entry(token).or_insert(rank);
    }
    let letters = letters();
    let spell = |token: &[u8]| token.iter().map(|byte| letters[usize::from(*byte)]).collect::<String>();
    let vocabulary = ranks.iter().map(|(token, rank)| (spell(token), (*rank).into())).collect();
    // A token may come of any two that make it up; the lower rank is merged first.
    let mut merges: Vec<(u32, u32, u32, Value)> = Vec::new();
    for (token, rank) in &ranks {
        for at in 1..token.len() {
            if let (Some(left), Some(right)) = (ranks.get(&token[..at]), ranks.get(&token[at..])) {
                merges.push((*rank, *left, *right, json!([spell(&token[..at]), spell(&token[at..])])));
            }
        }
    }
    merges.sort_by_key(|(rank, left, right, _)| (*rank, *left, *right));
    let first = ranks.values().max().map_or(0, |rank| u64::from(*rank) + 1);
    let mut special: BTreeMap<u64, Value> = BTreeMap::new();
    let names = rule.special.iter().flat_map(|(name, count)| (0..*count as u64).map(move |n| (*name, n)));
    for (id, (name, n)) in (first..).zip(names) {
        let number = if rule.by_id { id } else { n };
        special.insert(id, added(id, &name.replace('#', &number.to_string()), true));
    }
    special.extend(added_tokens(config));
    let merges = merges.into_iter().map(|(.., pair)| pair).collect();
    Ok(tokenizer(rule, vocabulary, merges, true, special.into_iter().collect()))
}

fn tokenizer(
    rule: &Rule,
    vocabulary: Map<String, Value>,
    merges: Vec<Value>,
    whole_words: bool,
    added: Vec<(u64, Value)>,
) -> Value {
    let level = |regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex,
        })
    };
    let split = json!({
        "type": "Split", "pattern": { "Regex": rule.pattern }, "behavior": "Isolated", "invert": false,
    });
    json!({
        "version": "1.0",
        "added_tokens": added.into_iter().map(|(_, token)| token).collect::<Vec<_>>(),
        "normalizer": if rule.composed { json!({ "type": "NFC" }) } else { Value::Null },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [split, level(false)] },
        "post_processor": null,
        "decoder": level(true),
        "model": { "type": "BPE", "vocab": vocabulary, "merges": merges, "ignore_merges": whole_words },
    })
}

/// The letter that stands for each byte (GPT-2): itself if it prints, else the next above 255.
fn letters() -> [char; 256] {
    let mut next = 256;
    std::array::from_fn(|byte| {
        let prints = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if prints { byte as u32 } else { next };
        next += u32::from(!prints);
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}
