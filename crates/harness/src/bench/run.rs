//! Runs the tests: one load, a warm-up, then repetitions in turn so that drift hits all tests alike.

use std::path::Path;
use std::time::Instant;

use amoeba_backend::{Executable, Row as Token};
use amoeba_engine::{LoadOptions, load_executable, open};
use amoeba_plan::{Plan, WeightId};

use super::row::{Row, Test};
use crate::Error;

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The tests.
    pub tests: Vec<Test>,
    /// Repetitions of each after one warm-up.
    pub repeats: usize,
    /// Device, threads, path.
    pub load: LoadOptions,
    /// Bandwidth to compare with, bytes per second.
    pub bandwidth: Option<f64>,
}

/// Measures a model; one row per test, in order.
///
/// # Errors
/// The model cannot be loaded, or a step fails.
pub fn bench(dir: &Path, options: &BenchOptions) -> Result<Vec<Row>, Error> {
    let started = Instant::now();
    let checkpoint = open(dir)?;
    let longest = options.tests.iter().map(|test| match *test {
        Test::Prefill(tokens) => tokens,
        Test::Decode { tokens, depth } => depth.max(1) + tokens,
    });
    let load = LoadOptions { context: Some(longest.max().unwrap_or(1)), ..options.load.clone() };
    let mut executable = load_executable(&checkpoint, &load, &mut |_, _| {})?;
    let load_ns = started.elapsed().as_nanos() as u64;
    let bytes_per_token = bytes_per_token(executable.plan(), &checkpoint)?;
    let model = dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut rows: Vec<Row> = Vec::new();
    for &test in &options.tests {
        let step_rows = match test {
            Test::Prefill(tokens) => tokens.min(executable.limits().rows),
            Test::Decode { .. } => 1,
        };
        rows.push(Row {
            model: model.clone(),
            test,
            device: executable.describe(),
            path: executable.path(step_rows).to_string(),
            samples_ns: Vec::new(),
            bytes_per_token,
            bandwidth: options.bandwidth,
            load_ns,
            memory: executable.memory(),
        });
    }
    for repeat in 0..=options.repeats {
        for row in &mut rows {
            let ns = time(&mut *executable, row.test)?;
            if repeat > 0 {
                row.samples_ns.push(ns);
            }
        }
    }
    Ok(rows)
}

/// One repetition, in nanoseconds.
fn time(executable: &mut dyn Executable, test: Test) -> Result<u64, Error> {
    let vocab = executable.plan().spec.vocab as u32;
    // Spread over the vocabulary and, through the router, over the experts.
    let token = |position: usize| (position as u32).wrapping_mul(2_654_435_761) % vocab;
    let prefill = |executable: &mut dyn Executable, tokens: usize| -> Result<(), Error> {
        let chunk = executable.limits().rows;
        for start in (0..tokens).step_by(chunk) {
            let end = tokens.min(start + chunk);
            let row = |i: usize| Token { token: token(i), slot: 0, position: i, logits: i + 1 == tokens };
            executable.step(&(start..end).map(row).collect::<Vec<_>>(), None)?;
        }
        Ok(())
    };
    match test {
        Test::Prefill(tokens) => {
            let started = Instant::now();
            prefill(executable, tokens)?;
            Ok(started.elapsed().as_nanos() as u64)
        }
        Test::Decode { tokens, depth } => {
            let depth = depth.max(1);
            prefill(executable, depth)?;
            let started = Instant::now();
            for position in depth..depth + tokens {
                let row = Token { token: token(position), slot: 0, position, logits: true };
                executable.step(&[row], None)?;
            }
            Ok(started.elapsed().as_nanos() as u64)
        }
    }
}

/// Weights one decoded token reads.
fn bytes_per_token(plan: &Plan, checkpoint: &amoeba_checkpoint::Checkpoint) -> Result<f64, Error> {
    let stored = plan.resolve(checkpoint)?;
    let read = |(i, stored): (usize, &amoeba_plan::Stored)| {
        stored.bytes as f64 * plan.share_read_per_token(WeightId(i))
    };
    Ok(stored.iter().enumerate().map(read).sum())
}
