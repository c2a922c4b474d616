//! Builders of small and of broken checkpoints, and the check every refusal must pass.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use amoeba_checkpoint::{Checkpoint, Error, ErrorKind};
use std::path::Path;
use tempfile::TempDir;

pub const CONFIG: &str = r#"{"model_type":"qwen3_moe","quantization":{"group_size":64,"bits":4}}"#;
pub const INDEX: &str = "model.safetensors.index.json";

/// A container of this header text and these data bytes.
pub fn raw(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

pub fn width(dtype: &str) -> usize {
    match dtype {
        "U8" | "BOOL" | "I8" => 1,
        "BF16" | "F16" => 2,
        "U32" | "I32" | "F32" => 4,
        _ => 8,
    }
}

/// A valid container of zeros with these tensors, in this order.
pub fn container(tensors: &[(&str, &str, &[usize])]) -> Vec<u8> {
    filled(tensors.iter().map(|&(name, dtype, shape)| {
        (name, dtype, shape.to_vec(), vec![0; shape.iter().product::<usize>() * width(dtype)])
    }))
}

/// A valid container of these tensors and bytes.
pub fn filled<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a str, Vec<usize>, Vec<u8>)>) -> Vec<u8> {
    let (mut fields, mut data) = (vec![r#""__metadata__":{"format":"mlx"}"#.to_owned()], Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend(bytes);
        let end = data.len();
        fields.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    raw(format!("{{{}}}", fields.join(",")).as_bytes(), &data)
}

/// A folder of `config.json` and these files.
pub fn folder<B: AsRef<[u8]>>(config: &str, files: &[(&str, B)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// Opens a folder with one weight file.
pub fn open_one(config: &str, file: &[u8]) -> Result<Checkpoint, Error> {
    Checkpoint::open(folder(config, &[("model.safetensors", file)]).path())
}

/// Asserts that an error is of this kind, mentions these words, and is fit for a terminal.
pub fn refused<T>(case: &str, result: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let error = match result {
        Ok(_) => panic!("{case}: accepted"),
        Err(error) => error,
    };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{case}: {text}");
    for word in words {
        assert!(text.contains(word), "{case}: `{word}` is not in: {text}");
    }
    assert!(text.len() < 1500 && !text.contains(char::is_control), "{case}: {text:?}");
}

pub fn open_refused(case: &str, dir: &Path, kind: ErrorKind, words: &[&str]) {
    refused(case, Checkpoint::open(dir), kind, words);
}
