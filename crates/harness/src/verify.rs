//! `verify`: a model folder with recorded results against what a backend computes.

use std::path::Path;

use amoeba_backend::{Executable, Row};
use amoeba_engine::{LoadOptions, load_executable, open};

use crate::numbers::argmax;
use crate::probe::{Point, Recorder, points};
use crate::{Error, Fixture};

/// Largest allowed difference of a logit between two f32 computations of these models (see
/// docs/results/parity.md).
const LOGIT_ALLOWED: f64 = 2e-3;
/// Largest allowed normalised RMS error of a block tensor: the contract for f32 activations.
const BLOCK_ALLOWED: f64 = 5e-4;
/// Largest allowed difference of a routing weight.
const WEIGHT_ALLOWED: f64 = 1e-4;

/// How to run a fixture.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Device, threads, instruction set, path.
    pub load: LoadOptions,
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared.
    pub name: &'static str,
    /// Largest error found; NaN if a number was not finite.
    pub error: f64,
    /// Largest error allowed.
    pub allowed: f64,
    /// Where the largest error was.
    pub at: String,
}

impl Check {
    /// Share of the tolerance that was used.
    pub fn used(&self) -> f64 {
        self.error / self.allowed
    }

    /// Within tolerance; NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.allowed
    }
}

/// First greedy token that differs.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Index into the continuation.
    pub index: usize,
    /// Recorded token.
    pub expected: u32,
    /// Computed token.
    pub found: u32,
    /// Recorded logit of the expected token minus that of the found one.
    pub margin: f32,
}

/// Verdict on one folder.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of the fixture.
    pub name: String,
    /// Family.
    pub family: &'static str,
    /// Device, instruction set, threads.
    pub device: String,
    /// Path of the prompt and of a decode step.
    pub paths: [String; 2],
    /// Comparisons made.
    pub checks: Vec<Check>,
    /// Greedy tokens compared.
    pub tokens: usize,
    /// First difference.
    pub divergence: Option<Divergence>,
}

impl Report {
    /// Everything within tolerance and all tokens equal.
    pub fn passed(&self) -> bool {
        self.divergence.is_none() && !self.checks.is_empty() && self.checks.iter().all(Check::passed)
    }
}

/// Runs the prompt in one step and the recorded continuation token by token, and compares.
///
/// # Errors
/// The folder or the model cannot be read, or a step fails. Differences are not errors: see
/// [`Report::passed`].
pub fn verify(dir: &Path, options: &VerifyOptions) -> Result<Report, Error> {
    let fixture = Fixture::open(dir)?;
    let checkpoint = open(dir)?;
    let total = fixture.prompt.len() + fixture.greedy.len();
    let load = LoadOptions { context: Some(total), rows: fixture.prompt.len(), ..options.load.clone() };
    let mut executable = load_executable(&checkpoint, &load, &mut |_, _| {})?;
    let run =
        Run { fixture: &fixture, hidden: executable.plan().spec.hidden, vocab: executable.plan().spec.vocab };
    let mut checks = Vec::new();
    run.prefill(&mut *executable, &mut checks)?;
    let divergence = run.decode(&mut *executable, &mut checks)?;
    Ok(Report {
        name: fixture.name.clone(),
        family: executable.plan().spec.family,
        device: executable.describe(),
        paths: [fixture.prompt.len(), 1].map(|rows| executable.path(rows).to_string()),
        checks,
        tokens: fixture.greedy.len(),
        divergence,
    })
}

struct Run<'a> {
    fixture: &'a Fixture,
    hidden: usize,
    vocab: usize,
}

impl Run<'_> {
    fn prefill(&self, executable: &mut dyn Executable, checks: &mut Vec<Check>) -> Result<(), Error> {
        let prompt = &self.fixture.prompt;
        let rows: Vec<Row> =
            (0..prompt.len()).map(|i| Row { token: prompt[i], slot: 0, position: i, logits: true }).collect();
        let outs = points(executable.plan()).into_iter().filter(|point| point.what == "out").collect();
        let mut recorder = Recorder::new(outs, rows.len());
        executable.step(&rows, Some(&mut recorder))?;
        let expected = self.fixture.floats("prefill_logits", prompt.len() * self.vocab)?;
        if let Some(expected) = expected {
            let mut check =
                Check { name: "prefill logits", error: 0.0, allowed: LOGIT_ALLOWED, at: String::new() };
            for (row, expected) in expected.chunks_exact(self.vocab).enumerate() {
                check.largest(executable.logits(row), expected, || format!("prompt token {row}"));
            }
            checks.push(check);
        }
        let mut layers =
            Check { name: "prefill layers", error: 0.0, allowed: BLOCK_ALLOWED, at: String::new() };
        let mut seen = false;
        for (point, values) in recorder.into_parts() {
            let name = format!("prefill.layers.{}.out", point.layer);
            if let Some(expected) = self.fixture.floats(&name, values.len())? {
                layers.rms(&values, &expected, name);
                seen = true;
            }
        }
        checks.extend(seen.then_some(layers));
        Ok(())
    }

    fn decode(
        &self,
        executable: &mut dyn Executable,
        checks: &mut Vec<Check>,
    ) -> Result<Option<Divergence>, Error> {
        let greedy = &self.fixture.greedy;
        let expected = self.fixture.floats("decode_logits", greedy.len() * self.vocab)?;
        let mut check =
            Check { name: "decode logits", error: 0.0, allowed: LOGIT_ALLOWED, at: String::new() };
        let mut divergence = None;
        let mut logits = executable.logits(self.fixture.prompt.len() - 1).to_vec();
        for (i, &token) in greedy.iter().enumerate() {
            let row = expected.as_ref().map(|expected| &expected[i * self.vocab..(i + 1) * self.vocab]);
            if let Some(row) = row {
                check.largest(&logits, row, || format!("token {i}"));
            }
            let found = argmax(&logits);
            if found != token && divergence.is_none() {
                let margin = row.map_or(f32::NAN, |row| row[token as usize] - row[found as usize]);
                divergence = Some(Divergence { index: i, expected: token, found, margin });
            }
            if i + 1 == greedy.len() {
                break;
            }
            let row = Row { token, slot: 0, position: self.fixture.prompt.len() + i, logits: true };
            if i == self.fixture.block_step {
                self.blocks(executable, row, checks)?;
            } else {
                executable.step(&[row], None)?;
            }
            logits.copy_from_slice(executable.logits(0));
        }
        checks.extend(expected.is_some().then_some(check));
        Ok(divergence)
    }

    /// The step whose blocks were recorded.
    fn blocks(
        &self,
        executable: &mut dyn Executable,
        row: Row,
        checks: &mut Vec<Check>,
    ) -> Result<(), Error> {
        let mut recorder = Recorder::new(points(executable.plan()), 1);
        executable.step(&[row], Some(&mut recorder))?;
        let new = |name, allowed| Check { name, error: 0.0, allowed, at: String::new() };
        let (mut layers, mut inputs, mut outputs) = (
            new("step layers", BLOCK_ALLOWED),
            new("moe input", BLOCK_ALLOWED),
            new("moe output", BLOCK_ALLOWED),
        );
        let mut weights = new("moe weights", WEIGHT_ALLOWED);
        let mut seen = [false; 2];
        for (point, values) in recorder.into_parts() {
            let name = format!("step.layers.{}.{}", point.layer, point.what);
            if point.what == "moe.route" {
                seen[1] |= self.route(&point, &values, &mut weights)?;
            } else if let Some(expected) = self.fixture.floats(&name, self.hidden)? {
                let (check, kind) = match point.what {
                    "moe.in" => (&mut inputs, 1),
                    "moe.out" => (&mut outputs, 1),
                    _ => (&mut layers, 0),
                };
                check.rms(&values, &expected, name);
                seen[kind] = true;
            }
        }
        checks.extend(seen[0].then_some(layers));
        checks.extend(if seen[1] { vec![inputs, weights, outputs] } else { Vec::new() });
        Ok(())
    }

    /// Choice and weights of one layer; a wrong choice is an infinite error.
    fn route(&self, point: &Point, route: &[f32], check: &mut Check) -> Result<bool, Error> {
        let k = route.len() / 2;
        let name = format!("step.layers.{}.moe.expert_index", point.layer);
        if !self.fixture.tensors.has(&name) {
            return Ok(false);
        }
        let stored = self.fixture.tensors.tensor(&name)?.bytes.as_chunks::<4>().0;
        let chosen: Vec<f32> = stored.iter().map(|bytes| i32::from_le_bytes(*bytes) as f32).collect();
        if chosen != route[..k] {
            (check.error, check.at) =
                (f64::INFINITY, format!("{name}: {:?}, expected {chosen:?}", &route[..k]));
            return Ok(true);
        }
        let name = format!("step.layers.{}.moe.expert_weight", point.layer);
        if let Some(expected) = self.fixture.floats(&name, k)? {
            check.largest(&route[k..], &expected, || name);
        }
        Ok(true)
    }
}

impl Check {
    /// Takes in the largest difference of two slices.
    fn largest(&mut self, found: &[f32], expected: &[f32], at: impl FnOnce() -> String) {
        let differences = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
        let error =
            differences.fold(0.0, |m: f64, d| if d.is_nan() || m.is_nan() { f64::NAN } else { m.max(d) });
        self.take(error, at);
    }

    /// Takes in the normalised RMS difference of two slices.
    fn rms(&mut self, found: &[f32], expected: &[f32], at: String) {
        let square = |x: f64| x * x;
        let error: f64 = found.iter().zip(expected).map(|(a, b)| square(f64::from(a - b))).sum();
        let size: f64 = expected.iter().map(|&x| square(f64::from(x))).sum();
        self.take((error / size.max(f64::MIN_POSITIVE)).sqrt(), || at);
    }

    fn take(&mut self, error: f64, at: impl FnOnce() -> String) {
        if error.is_nan() || error > self.error || self.at.is_empty() {
            (self.error, self.at) = (error, at());
        }
    }
}
