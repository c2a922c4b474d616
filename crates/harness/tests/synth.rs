//! Synthetic models: every format loads and decodes; the same spec gives the same bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use amoeba_backend::Row;
use amoeba_engine::{LoadOptions, load_executable, open};
use amoeba_harness::synth;
use amoeba_text::Tokenizer;

/// A folder that is not there yet.
fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn formats() -> Vec<String> {
    let affine = [2, 3, 4, 5, 6, 8].into_iter().flat_map(|b| [32, 64, 128].map(|g| format!("q{b}g{g}")));
    affine.chain(["mxfp4", "mxfp8", "nvfp4", "bf16"].map(str::to_owned)).collect()
}

#[test]
fn every_format_loads_and_decodes() {
    for format in formats() {
        let dir = fresh(&format!("synth-{format}"));
        synth(&format!("tiny:{format}"), &dir, &mut |_, _| {}).unwrap();
        let checkpoint = open(&dir).unwrap();
        let options = LoadOptions { threads: Some(2), ..LoadOptions::default() };
        let mut executable = load_executable(&checkpoint, &options, &mut |_, _| {}).unwrap();
        let prefill: Vec<Row> = (0..9).map(|i| row(i, i == 8)).collect();
        executable.step(&prefill, None).unwrap();
        for position in 9..12 {
            executable.step(&[row(position, true)], None).unwrap();
            let logits = executable.logits(0);
            let square = logits.iter().map(|x| f64::from(x * x)).sum::<f64>() / logits.len() as f64;
            assert!((0.3..3.0).contains(&square.sqrt()), "{format}: logits of size {}", square.sqrt());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

fn row(position: usize, logits: bool) -> Row {
    Row { token: (position * 37 % 512) as u32, slot: 0, position, logits }
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    let dirs = [fresh("synth-once"), fresh("synth-again")];
    for dir in &dirs {
        let mut heard = Vec::new();
        synth("tiny:1:q4g64", dir, &mut |done, total| heard.push((done, total))).unwrap();
        assert_eq!(heard.last().map(|(done, total)| done == total), Some(true));
    }
    let mut names: Vec<_> = std::fs::read_dir(&dirs[0]).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        let [once, again] = [0, 1].map(|i| std::fs::read(dirs[i].join(&name)).unwrap());
        assert_eq!(once, again, "{name:?}");
    }
}

#[test]
fn its_tokenizer_maps_bytes() {
    let dir = fresh("synth-tokenizer");
    synth("tiny:1", &dir, &mut |_, _| {}).unwrap();
    let tokenizer = Tokenizer::open(&dir).unwrap();
    let text = "Grüße, 1 + 1 = 2\n\tok";
    let tokens = tokenizer.encode(text, false).unwrap();
    assert_eq!(tokens, text.bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!(tokenizer.decode(&tokens, false).unwrap(), text);
}

#[test]
fn a_folder_in_use_is_refused() {
    let dir = fresh("synth-used");
    synth("tiny:1", &dir, &mut |_, _| {}).unwrap();
    let message = synth("tiny:1", &dir, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("is not empty"), "{message}");
}

#[test]
fn a_bad_spec_is_explained() {
    let message = synth("medium", &fresh("synth-bad"), &mut |_, _| {}).unwrap_err().to_string();
    assert!(
        message.contains("no shape `medium`") && message.contains("SHAPE[:LAYERS][:FORMAT]"),
        "{message}"
    );
}
