//! The bundled model: perplexity against the figure recorded for it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_engine::LoadOptions;
use amoeba_harness::eval::{EvalOptions, eval};
use amoeba_text::Tokenizer;

/// mlx-lm 0.32.2, float32 compute, windows of 512.
const RECORDED: f64 = 4.0838;
const TOKENS: usize = 22_089;

#[test]
fn perplexity_is_the_recorded_one() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let dir = models.join("tiny-chat-moe-4bit");
    let text = std::fs::read_to_string(models.join("tiny-chat-moe-valid.txt")).unwrap();
    let tokens = Tokenizer::open(&dir).unwrap().encode(&text, false).unwrap();
    let options = EvalOptions { window: 512, load: LoadOptions::default(), record: None };
    let found = eval(&dir, &tokens, &options).unwrap();
    println!("perplexity {:.4} over {} tokens, recorded {RECORDED}", found.perplexity, found.tokens);
    assert_eq!(found.tokens, TOKENS);
    assert!((found.perplexity / RECORDED - 1.0).abs() <= 0.002, "{found:?}");
}
