//! Perplexity over a text: how surprised a model is, every token counted.

use std::path::Path;

use amoeba_backend::Row;
use amoeba_engine::{LoadOptions, load_executable, open};

use crate::Error;

/// Result of [`perplexity`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// `exp` of the mean negative log-likelihood.
    pub value: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

/// Perplexity of the model in `dir` over `tokens`, in windows of `window` that do not overlap; each window also
/// predicts the first token of the next, so every token but the first is counted once.
///
/// # Errors
/// The model cannot be loaded, or fewer than two tokens.
pub fn perplexity(
    dir: &Path,
    tokens: &[u32],
    window: usize,
    load: &LoadOptions,
) -> Result<Perplexity, Error> {
    let checkpoint = open(dir)?;
    let load = LoadOptions { context: Some(window), rows: window, ..load.clone() };
    let mut executable = load_executable(&checkpoint, &load, &mut |_, _| {})?;
    let vocab = executable.plan().spec.vocab;
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
        return Err(amoeba_backend::Error::UnknownToken { token, vocab }.into());
    }
    let (mut sum, mut count) = (0.0, 0);
    let mut start = 0;
    while start + 1 < tokens.len() {
        let end = (start + window).min(tokens.len() - 1);
        let row = |i: usize| Row { token: tokens[i], slot: 0, position: i - start, logits: true };
        let rows: Vec<Row> = (start..end).map(row).collect();
        executable.step(&rows, None)?;
        for i in 0..rows.len() {
            sum += surprise(executable.logits(i), tokens[start + i + 1]);
        }
        count += rows.len();
        start = end;
    }
    if count == 0 {
        return Err(Error::TooShort(tokens.len()));
    }
    Ok(Perplexity { value: (sum / count as f64).exp(), tokens: count })
}

/// Negative log-likelihood of `token` in nats.
fn surprise(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    sum.ln() + f64::from(max) - f64::from(logits[token as usize])
}
