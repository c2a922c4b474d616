//! Tokenizers that parse and then panic, hang or fill the memory: refused at once, or an error of the text.
#![allow(clippy::unwrap_used)]

use amoeba_text::Tokenizer;
use serde_json::{Value, json};

/// A small vocabulary with these parts replaced.
fn open(parts: Value) -> Result<Tokenizer, String> {
    let mut tokenizer = json!({
        "version": "1.0", "added_tokens": [],
        "model": { "type": "BPE", "vocab": { "h": 0, "i": 1, "e": 2 }, "merges": [] },
    });
    for (key, part) in parts.as_object().unwrap() {
        tokenizer[key] = part.clone();
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), serde_json::to_vec(&tokenizer).unwrap()).unwrap();
    Tokenizer::open(dir.path()).map_err(|error| error.to_string())
}

#[test]
fn what_would_panic_hang_or_take_all_memory_is_refused() {
    let replace = |from: &str, to: &str| {
        json!({
            "type": "Replace", "pattern": { "String": from }, "content": to,
        })
    };
    let precompiled = |map: &str| {
        json!({ "normalizer": {
        "type": "Precompiled", "precompiled_charsmap": map,
    } })
    };
    let added = |content: String| {
        json!({ "added_tokens": [{
        "id": 3, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    }] })
    };
    for (parts, reason) in [
        (json!({ "pre_tokenizer": { "type": "FixedLength", "length": 0 } }), "length 0"),
        (json!({ "normalizer": replace("", "x") }), "the empty text"),
        (precompiled("AAAAAA=="), "does not hold together"),
        (precompiled("BAAAAO6kjb8="), "does not hold together"),
        (precompiled("/////wAAAAD/////AAAA"), "does not hold together"),
        (
            json!({ "normalizer": { "type": "Sequence", "normalizers": vec![replace("h", "hh"); 40] } }),
            "1099511627776 times longer",
        ),
        (
            json!({ "decoder": { "type": "Sequence", "decoders": vec![replace("e", "ee"); 40] } }),
            "its decoder may make",
        ),
        (json!({ "normalizer": { "type": "Prepend", "prepend": "h".repeat(10_000_000) } }), "prepends"),
        (added("h".repeat(20_000)), "has 20000 bytes"),
    ] {
        let error = open(parts).err().unwrap();
        assert!(error.contains(reason) && error.len() < 600, "{reason}: {error:.600}");
    }
}

#[test]
fn a_panic_in_the_crate_is_an_error_of_the_text() {
    let empty = json!({ "type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {} });
    let tokenizer =
        open(json!({ "post_processor": { "type": "Sequence", "processors": [empty, empty] } })).unwrap();
    for _ in 0..2 {
        assert!(tokenizer.encode("hi", true).unwrap_err().to_string().contains("panicked"));
        assert_eq!(tokenizer.encode_plain("hi").unwrap(), [0, 1]);
    }
}
