//! `eval`: how surprised a model is by a text, and how far its distributions are from recorded ones.
//!
//! A [`Record`] holds the logits after every token of a text, so that a model can be compared with another
//! model, build or machine without having both at once. docs/eval.md describes the file.

mod layout;
mod record;
mod writer;

use std::path::{Path, PathBuf};

use amoeba_backend::{Executable, Row};
use amoeba_engine::{LoadOptions, load_executable, open};

use crate::Error;
use crate::bench::BenchModel;
use crate::numbers::{argmax, divergence, surprise};

pub use layout::{Header, Precision};
pub use record::Record;
pub use writer::RecordWriter;

/// How to evaluate.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// Tokens per window; windows do not overlap. A record brings its own.
    pub window: usize,
    /// Device and path; the context follows from the window, `rows` is the most rows of a step.
    pub load: LoadOptions,
    /// Where to keep the logits, and how precisely.
    pub record: Option<(PathBuf, Precision)>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// `exp` of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Tokens per window.
    pub window: usize,
    /// Device, instruction set, workers.
    pub device: String,
    /// Path of a full step, and why.
    pub path: String,
    /// Hash of the model.
    pub model: String,
    /// Distance from what was recorded, if anything was.
    pub distance: Option<Distances>,
}

/// How far a model's distributions are from recorded ones, over all predicted tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Distances {
    /// Hash of the recorded model.
    pub model: String,
    /// Perplexity of what was recorded.
    pub perplexity: f64,
    /// Kullback-Leibler divergence of this model from the recorded one in nats: mean.
    pub mean: f64,
    /// Its median.
    pub median: f64,
    /// 99 in 100 are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// The token after which it was.
    pub max_at: usize,
    /// Share of tokens for which both think the same one the likeliest.
    pub same_top: f64,
}

/// Evaluates the model in `dir` over `tokens`: each window also predicts the first token of the next, so
/// every token but the first is counted once.
///
/// # Errors
/// The model cannot be loaded, fewer than two tokens, or the record cannot be written.
pub fn eval(dir: &Path, tokens: &[u32], options: &EvalOptions) -> Result<Evaluation, Error> {
    let (mut executable, model) = load(dir, options.window, &options.load)?;
    let header = |precision| Header {
        precision,
        model: model.clone(),
        vocab: executable.plan().spec.vocab,
        window: options.window,
    };
    let mut writer = match &options.record {
        Some((file, precision)) => Some(RecordWriter::create(file, &header(*precision), tokens)?),
        None => None,
    };
    let (mut sum, mut count) = (0.0, 0);
    walk(&mut *executable, tokens, options.window, &mut |at, logits| {
        sum += surprise(logits, tokens[at + 1]);
        count += 1;
        writer.as_mut().map_or(Ok(()), |writer| writer.row(logits))
    })?;
    writer.map_or(Ok(()), RecordWriter::finish)?;
    Ok(evaluation(&*executable, options.window, model, (sum, count), None))
}

/// Evaluates the model in `dir` over the tokens of a record and holds it against the recorded logits.
///
/// # Errors
/// The model cannot be loaded, has another vocabulary, or the record cannot be read.
pub fn eval_against(dir: &Path, record: &mut Record, options: &LoadOptions) -> Result<Evaluation, Error> {
    let window = record.header().window;
    let (mut executable, model) = load(dir, window, options)?;
    record.fits(executable.plan().spec.vocab)?;
    let tokens = record.tokens().to_vec();
    let (mut sum, mut recorded_sum, mut same) = (0.0, 0.0, 0_usize);
    let mut all = Vec::with_capacity(tokens.len());
    compare(&mut *executable, record, &mut |at, recorded, logits| {
        sum += surprise(logits, tokens[at + 1]);
        recorded_sum += surprise(recorded, tokens[at + 1]);
        same += usize::from(argmax(recorded) == argmax(logits));
        all.push(divergence(recorded, logits));
    })?;
    let count = all.len();
    let max_at = (0..count).max_by(|&a, &b| all[a].total_cmp(&all[b])).unwrap_or(0);
    let mean = all.iter().sum::<f64>() / count as f64;
    all.sort_by(f64::total_cmp);
    let quantile = |q: f64| all[((count - 1) as f64 * q).round() as usize];
    let distance = Distances {
        model: record.header().model.clone(),
        perplexity: (recorded_sum / count as f64).exp(),
        mean,
        median: quantile(0.5),
        p99: quantile(0.99),
        max: quantile(1.0),
        max_at,
        same_top: same as f64 / count as f64,
    };
    Ok(evaluation(&*executable, window, model, (sum, count), Some(distance)))
}

/// Calls back with an executable's logits and the recorded ones: index of the token they follow, recorded,
/// computed.
///
/// # Errors
/// A step fails, or the record cannot be read.
pub fn compare(
    executable: &mut dyn Executable,
    record: &mut Record,
    see: &mut dyn FnMut(usize, &[f32], &[f32]),
) -> Result<(), Error> {
    let (tokens, window) = (record.tokens().to_vec(), record.header().window);
    let mut row = Vec::new();
    walk(executable, &tokens, window, &mut |at, logits| {
        record.next_row(&mut row)?;
        see(at, &row, logits);
        Ok(())
    })
}

fn load(dir: &Path, window: usize, load: &LoadOptions) -> Result<(Box<dyn Executable>, String), Error> {
    let checkpoint = open(dir)?;
    let load = LoadOptions { context: Some(window), rows: load.rows.min(window), ..load.clone() };
    let executable = load_executable(&checkpoint, &load, &mut |_, _| {})?;
    let model = BenchModel::new("", &checkpoint, executable.plan())?.hash;
    Ok((executable, model))
}

/// Runs windows of tokens and calls back with the logits after every token but the last, and the token's
/// index.
fn walk(
    executable: &mut dyn Executable,
    tokens: &[u32],
    window: usize,
    see: &mut dyn FnMut(usize, &[f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let vocab = executable.plan().spec.vocab;
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
        return Err(amoeba_backend::Error::UnknownToken { token, vocab }.into());
    }
    if tokens.len() < 2 {
        return Err(Error::TooShort(tokens.len()));
    }
    let last = tokens.len() - 1;
    let most = executable.limits().rows;
    for start in (0..last).step_by(window) {
        let end = last.min(start + window);
        for first in (start..end).step_by(most) {
            let row = |i: usize| Row { token: tokens[i], slot: 0, position: i - start, logits: true };
            let rows: Vec<Row> = (first..end.min(first + most)).map(row).collect();
            executable.step(&rows, None)?;
            for n in 0..rows.len() {
                see(first + n, executable.logits(n))?;
            }
        }
    }
    Ok(())
}

fn evaluation(
    executable: &dyn Executable,
    window: usize,
    model: String,
    (sum, tokens): (f64, usize),
    distance: Option<Distances>,
) -> Evaluation {
    let rows = executable.limits().rows.min(tokens);
    Evaluation {
        perplexity: (sum / tokens as f64).exp(),
        tokens,
        window,
        device: executable.describe(),
        path: executable.path(rows).to_string(),
        model,
        distance,
    }
}
