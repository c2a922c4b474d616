//! Damaged, hostile and very large tokenizer files end in a clear error or work; nothing panics.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use amoeba_text::{Error, Tokenizer};
use common::*;
use serde_json::{Value, json};

fn open(dir: &Path, json: &Value) -> Result<Tokenizer, Error> {
    std::fs::write(dir.join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::open(dir)
}

fn added(id: u32, content: &str) -> Value {
    json!({ "id": id, "content": content, "special": true, "normalized": false, "single_word": false,
        "lstrip": false, "rstrip": false })
}

fn bpe(extra: Value) -> Value {
    let mut model = json!({ "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": [["a", "b"]] });
    model.as_object_mut().unwrap().extend(object(extra));
    json!({ "version": "1.0", "added_tokens": [], "model": model })
}

#[test]
fn refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::open(dir.path()), Err(Error::NoTokenizer { .. })));
    let mut overlap = bpe(json!({}));
    overlap["added_tokens"] = json!([added(3, "<x>"), added(3, "<y>")]);
    let mut twice = bpe(json!({}));
    twice["added_tokens"] = json!([added(3, "<x>"), added(4, "<x>")]);
    let mut displaced = bpe(json!({}));
    displaced["added_tokens"] = json!([added(7, "a")]);
    for (what, json) in [
        ("null", json!(null)),
        ("array", json!([])),
        ("empty", json!({})),
        ("no model", json!({ "version": "1.0" })),
        ("version", {
            let mut j = bpe(json!({}));
            j["version"] = json!("9.0");
            j
        }),
        ("merge outside the vocabulary", bpe(json!({ "merges": [["a", "z"]] }))),
        ("merge result outside the vocabulary", bpe(json!({ "merges": [["b", "a"]] }))),
        ("merge of three", bpe(json!({ "merges": [["a", "b", "c"]] }))),
        ("continuing prefix", bpe(json!({ "continuing_subword_prefix": "ééééé" }))),
        ("dropout", bpe(json!({ "dropout": 7.5 }))),
        ("negative id", bpe(json!({ "vocab": { "a": -1 } }))),
        ("model type", bpe(json!({ "type": "Mystery" }))),
        ("two tokens with one id", overlap),
        ("one token with two ids", twice),
        ("added token displaced", displaced),
        ("bad regex", {
            let mut j = bpe(json!({}));
            j["pre_tokenizer"] = json!({ "type": "Split", "pattern": { "Regex": "(((" },
                "behavior": "Isolated", "invert": false });
            j
        }),
        (
            "unigram unk",
            json!({ "version": "1.0", "model": { "type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0]] } }),
        ),
    ] {
        let error = open(dir.path(), &json).err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(error.to_string().contains("tokenizer.json"), "{what}: {error}");
    }
}

#[test]
fn truncated_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("spm").join("tokenizer.json")).unwrap();
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(dir.path().join("tokenizer.json"), &whole[..length]).unwrap();
        assert!(Tokenizer::open(dir.path()).is_err(), "{length} bytes");
    }
}

#[test]
fn deep_json() {
    let dir = tempfile::tempdir().unwrap();
    for part in ["normalizer", "model", "added_tokens", "other"] {
        let deep = format!("{{\"{part}\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        std::fs::write(dir.path().join("tokenizer.json"), deep).unwrap();
        assert!(Tokenizer::open(dir.path()).is_err(), "{part}");
    }
}

#[test]
fn odd_but_usable() {
    let dir = tempfile::tempdir().unwrap();
    let cyclic = bpe(json!({
        "vocab": { "": 0, "a": 1, "b": 2, "aa": 3, "aaa": 4, "ab": 5, "ba": 6 },
        "merges": [["a", "a"], ["aa", "a"], ["a", "aa"], ["", "a"], ["a", ""], ["a", "b"], ["b", "a"]],
    }));
    let tokenizer = open(dir.path(), &cyclic).unwrap();
    assert!(!tokenizer.encode(&"ab".repeat(1000), false).unwrap().is_empty());
    let missing_unk = open(dir.path(), &bpe(json!({ "unk_token": "<unk>" }))).unwrap();
    assert_eq!(missing_unk.encode("ab", false).unwrap(), [2]);
    assert!(matches!(missing_unk.encode("z", false), Err(Error::Encode(_))));
    let mut truncating = bpe(json!({}));
    truncating["truncation"] =
        json!({ "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0 });
    assert_eq!(open(dir.path(), &truncating).unwrap().encode("abab", false).unwrap(), [2, 2]);
}

#[test]
fn eos_from_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, value: Value| std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    write("config.json", json!({ "eos_token_id": [2, 1] }));
    write("generation_config.json", json!({ "eos_token_id": 1 }));
    write("tokenizer_config.json", json!({ "eos_token": { "content": "a" } }));
    let ends = || open(dir.path(), &bpe(json!({}))).map(|tokenizer| tokenizer.eos_ids().to_vec());
    assert_eq!(ends().unwrap(), [2, 1, 0]);
    // Forms and files that other programs write or forgive.
    for file in ["", "{\"eos_token_id\": 1,}", "[]"] {
        std::fs::write(dir.path().join("generation_config.json"), file).unwrap();
        std::fs::write(dir.path().join("special_tokens_map.json"), file).unwrap();
        for (text, ids) in [
            ("{\"eos_token_id\": [[2], [1, null]]}", &[2, 1, 0][..]),
            ("\u{feff}{\"eos_token_id\": 2.0, \"x\": [-Infinity, NaN]}", &[2, 0]),
            ("{\"eos_token_id\": \"1\", \"x\": {\"__float__\": \"Infinity\"}}", &[1, 0]),
            ("{\"text_config\": {\"eos_token_id\": 1}}", &[1, 0]),
        ] {
            std::fs::write(dir.path().join("config.json"), text).unwrap();
            assert_eq!(ends().unwrap(), ids, "{text}");
        }
    }
    for wrong in [json!(-1), json!("x"), json!([1.5]), json!(1u64 << 40)] {
        write("config.json", json!({ "eos_token_id": wrong }));
        let error = Tokenizer::open(dir.path()).err().unwrap();
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}

#[test]
fn fifty_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut vocab = serde_json::Map::new();
    for (id, word) in ["a", "b", "ab"]
        .into_iter()
        .map(str::to_owned)
        .chain((0..700_000).map(|n| format!("{n:064}")))
        .enumerate()
    {
        vocab.insert(word, id.into());
    }
    let json = bpe(json!({ "vocab": vocab }));
    let started = std::time::Instant::now();
    let tokenizer = open(dir.path(), &json).unwrap();
    assert!(std::fs::metadata(dir.path().join("tokenizer.json")).unwrap().len() > 50_000_000);
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [2]);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn long_runs_take_reasonable_time() {
    for flavour in FLAVOURS {
        let tokenizer = tokenizer(flavour);
        for unit in [" ", "a", "\n", "🙂", "<|", "1", "\u{301}"] {
            let text = unit.repeat(300_000 / unit.len());
            let started = std::time::Instant::now();
            let ids = tokenizer.encode_plain(&text).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{flavour} {unit:?}");
            assert!(started.elapsed().as_secs() < 20, "{flavour} {unit:?} took {:?}", started.elapsed());
        }
    }
}
