//! Tokenizers from other files than `tokenizer.json`: ids and texts of the reference programs.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::Tokenizer;
use common::*;
use serde_json::Value;

#[test]
fn ids_are_those_of_the_reference() {
    let folders = std::fs::read_dir(root().join("fixtures/vocabularies")).unwrap();
    let mut seen = 0;
    for dir in folders.map(|entry| entry.unwrap().path()) {
        let tokenizer = Tokenizer::open(&dir).unwrap();
        let rows: Vec<Value> =
            serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        for row in rows {
            let (text, back) = (row["text"].as_str().unwrap(), row["back"].as_str().unwrap());
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(Value::from(ids.clone()), row["ids"], "{}: {text:?}", dir.display());
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), back, "{}: {ids:?}", dir.display());
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} rows");
}

/// A folder of these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
    dir
}

#[test]
fn tokens_of_the_config_complete_the_vocabulary() {
    let json = std::fs::read(root().join("fixtures/tokenizers/gpt2/tokenizer.json")).unwrap();
    let plain = Tokenizer::open(folder(&[("tokenizer.json", &json)]).path()).unwrap();
    let (next, word) = (plain.vocab_size(), plain.encode("the", false).unwrap()[0]);
    let word_text = plain.decode(&[word], false).unwrap();
    let config = serde_json::json!({ "added_tokens_decoder": {
        word.to_string(): { "content": word_text, "special": true },
        next.to_string(): { "content": "<|new|>", "special": true },
        (next + 9).to_string(): { "content": "<|far|>", "special": true },
    } });
    let config = serde_json::to_vec(&config).unwrap();
    let dir = folder(&[("tokenizer.json", &json), ("tokenizer_config.json", &config)]);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("<|new|>", false).unwrap(), [next as u32]);
    assert!(tokenizer.is_special(next as u32) && tokenizer.is_special(word));
    assert_eq!((tokenizer.token_id("<|far|>"), tokenizer.vocab_size()), (None, next + 1));
}

#[test]
fn what_cannot_be_converted_is_named() {
    let class: &[u8] = br#"{"tokenizer_class": "XTokenizer"}"#;
    for (files, part) in [
        (vec![], "has no tokenizer"),
        (vec![("vocab.json", &b"{}"[..])], "tokenizer_class \"\""),
        (vec![("tiktoken.model", &b"AA== 0\n"[..]), ("tokenizer_config.json", class)], "\"XTokenizer\""),
        (vec![("tiktoken.model", &b"AA== 0\n\n?? 1\n"[..])], "line 3"),
        (vec![("tokenizer.model", &b"\x0a\xff"[..])], "not a model of sentencepiece"),
        (vec![("tokenizer.model", &b""[..])], "no pieces"),
    ] {
        let error = Tokenizer::open(folder(&files).path()).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}
