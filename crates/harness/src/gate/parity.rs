//! Greedy answers and distributions, token by token on the same text, against the unfused path, the reference
//! or a record.

use amoeba_backend::Executable;

use super::Against;
use super::check::Check;
use super::lab::{Lab, rows};
use crate::Error;
use crate::eval::{Record, compare};
use crate::numbers::{argmax, divergence, margin, worse};

/// Two f32 computations of these models differ by at most 2e-3 in a logit (docs/results/parity.md), so two
/// logits of one of them closer than twice that may change places.
const NOISE: f64 = 4e-3;
/// Mean KL divergence allowed.
const KL_MEAN: f64 = 1e-4;
/// Largest KL divergence allowed: with no logit off by more than 2e-3, no log-probability is by more than
/// twice that.
const KL_MAX: f64 = 4e-3;

/// Greedy, mean and largest KL.
type Names = [&'static str; 3];
const OTHER: Names = ["parity: greedy", "parity: KL mean", "parity: KL max"];
const TRUTH: Names = ["parity: greedy, reference", "parity: KL mean, reference", "parity: KL max, reference"];

/// Everything asked for; the reference too, as far as it can be afforded.
pub fn check(lab: &Lab<'_>) -> Result<Vec<Check>, Error> {
    let mut checks = Vec::new();
    match &lab.options.against {
        Against::Unfused if !lab.has_experts() => {
            checks.extend(OTHER.map(|name| Check::skipped(name, "the model has no routed experts")));
        }
        Against::Unfused => {
            let mut tally = Tally::default();
            let (mut candidate, mut unfused) = (lab.candidate(|_| {})?, lab.unfused()?);
            for prompt in &lab.prompts {
                tally.prompt(lab, &mut *candidate, &mut *unfused, prompt, lab.effort.generated)?;
            }
            checks.extend(tally.checks(OTHER));
        }
        Against::Record(file) => return against_record(lab, Record::open(file)?),
        Against::Reference => {}
    }
    checks.extend(against_reference(lab)?);
    Ok(checks)
}

fn against_reference(lab: &Lab<'_>) -> Result<Vec<Check>, Error> {
    let mut left = lab.effort.reference_tokens;
    if left < 2 {
        let why = format!("a token is {:.1e} products, too many for the reference", lab.products());
        return Ok(TRUTH.map(|name| Check::skipped(name, why.clone())).into());
    }
    let mut tally = Tally::default();
    let mut candidate = lab.candidate(|_| {})?;
    let mut reference = lab.reference()?;
    for prompt in &lab.prompts {
        let mut prompt = prompt.clone();
        prompt.tokens.truncate(left / 2);
        let generated = lab.effort.generated.min(left / 2);
        if prompt.tokens.is_empty() {
            break;
        }
        left -= prompt.tokens.len() + generated;
        tally.prompt(lab, &mut *candidate, &mut reference, &prompt, generated)?;
    }
    Ok(tally.checks(TRUTH).into())
}

/// Distances over all positions so far.
#[derive(Default)]
struct Tally {
    prompts: usize,
    positions: usize,
    generated: usize,
    /// Another best token where the margin is above the noise; the first one in words.
    decided: usize,
    first: Option<String>,
    /// Largest margin at which the best token changed within the noise, and how often.
    undecided: (usize, f64),
    sum: f64,
    max: f64,
    max_at: String,
}

impl Tally {
    /// A prompt and its greedy continuation by `other`, which the candidate follows in steps that it runs
    /// fused.
    fn prompt(
        &mut self,
        lab: &Lab<'_>,
        candidate: &mut dyn Executable,
        other: &mut dyn Executable,
        prompt: &super::Prompt,
        generated: usize,
    ) -> Result<(), Error> {
        let n = prompt.tokens.len();
        other.step(&rows(&prompt.tokens, 0, 0), None)?;
        for (i, part) in prompt.tokens.chunks(lab.chunk).enumerate() {
            candidate.step(&rows(part, 0, i * lab.chunk), None)?;
            for row in 0..part.len() {
                let at = i * lab.chunk + row;
                self.position(other.logits(at), candidate.logits(row), || {
                    format!("`{}`, token {at}", prompt.name)
                });
            }
        }
        let mut token = argmax(other.logits(n - 1));
        for position in n..n + generated {
            let row = rows(&[token], 0, position);
            other.step(&row, None)?;
            candidate.step(&row, None)?;
            self.position(other.logits(0), candidate.logits(0), || {
                format!("`{}`, token {position}", prompt.name)
            });
            token = argmax(other.logits(0));
        }
        self.prompts += 1;
        self.generated += generated;
        Ok(())
    }

    fn position(&mut self, other: &[f32], candidate: &[f32], place: impl Fn() -> String) {
        let kl = divergence(other, candidate);
        self.positions += 1;
        self.sum += kl;
        if worse(kl, self.max) {
            (self.max, self.max_at) = (kl, place());
        }
        let (expected, found) = (argmax(other), argmax(candidate));
        let lead = f64::from(other[expected as usize]) - f64::from(other[found as usize]);
        match lead {
            _ if expected == found => {}
            lead if lead <= NOISE => self.undecided = (self.undecided.0 + 1, self.undecided.1.max(lead)),
            lead => {
                self.decided += 1;
                self.first.get_or_insert_with(|| {
                    let margin = margin(other);
                    format!(
                        "{}: {found} instead of {expected}, whose logit is {lead:.1e} higher (margin \
                         {margin:.1e})",
                        place()
                    )
                });
            }
        }
    }

    fn checks(self, [greedy, mean, max]: Names) -> [Check; 3] {
        let equal = match self.undecided {
            (0, _) => "all best tokens equal".to_owned(),
            (n, lead) => format!("{n} changed within the noise of {NOISE:.0e} (largest margin {lead:.1e})"),
        };
        let detail = format!(
            "{} prompts, {} positions, {} generated; {}",
            self.prompts,
            self.positions,
            self.generated,
            self.first.unwrap_or(equal)
        );
        let average = self.sum / self.positions.max(1) as f64;
        let at = if self.max_at.is_empty() { "all zero".to_owned() } else { self.max_at };
        [
            Check::none_wrong(greedy, self.decided, detail),
            Check::at_most(mean, average, KL_MEAN, format!("nats, over {} positions", self.positions)),
            Check::at_most(max, self.max, KL_MAX, at),
        ]
    }
}

/// The same numbers against recorded logits, over the recorded tokens.
fn against_record(lab: &Lab<'_>, mut record: Record) -> Result<Vec<Check>, Error> {
    record.fits(lab.plan.spec.vocab)?;
    record.is_of(&lab.model.hash)?;
    let (window, chunk) = (record.header().window, lab.chunk);
    let mut candidate = lab.candidate(|load| (load.context, load.rows) = (Some(window), chunk))?;
    let mut tally = Tally { prompts: 1, ..Tally::default() };
    compare(&mut *candidate, &mut record, &mut |at, recorded, logits| {
        tally.position(recorded, logits, || format!("recorded token {at}"));
    })?;
    Ok(tally.checks(OTHER).into())
}
