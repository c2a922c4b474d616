//! Phases, bytes and idle time of recorded tokens, against the unfused path and against a stored baseline.

use amoeba_backend::{Error as BackendError, Executable};

use super::check::{Check, Verdict};
use super::lab::Lab;
use crate::Error;
use crate::bench::{Host, Spread};
use crate::trace::{CaptureOptions, IDLE_MARGIN, Summary, TOKENS_CHECK_MIN, capture_on};

/// Captures before idle time that grew is believed: another program may have been at work.
const TRIES: usize = 3;
const AGAINST_UNFUSED: [&str; 4] = ["trace: phases", "trace: bytes", "trace: idle", "trace: expert idle"];
const BASELINE: &str = "trace: baseline";

/// What grew.
pub fn check(lab: &Lab<'_>) -> Result<Vec<Check>, Error> {
    let mut candidate = lab.candidate(|_| {})?;
    let why = match candidate.record(1) {
        Err(error @ BackendError::CannotRecord(_)) => Some(error.to_string()),
        other => {
            other?;
            (!lab.has_experts()).then(|| "the model has no routed experts".to_owned())
        }
    };
    let mut checks = match &why {
        Some(why) => AGAINST_UNFUSED.map(|name| Check::skipped(name, why.clone())).to_vec(),
        None => against_unfused(lab, &mut *candidate)?.to_vec(),
    };
    if let Some(baseline) = &lab.options.baseline {
        checks.push(against_baseline(lab, baseline)?);
    }
    Ok(checks)
}

fn capture(
    lab: &Lab<'_>,
    executable: &mut dyn Executable,
    depth: usize,
    tokens: usize,
) -> Result<Summary, Error> {
    let options = CaptureOptions {
        name: lab.model.name.clone(),
        load: lab.options.load.clone(),
        depth,
        tokens,
        build: lab.options.build.clone(),
        host: Host::default(),
    };
    Ok(capture_on(executable, &lab.model, &options)?.summary())
}

fn against_unfused(lab: &Lab<'_>, candidate: &mut dyn Executable) -> Result<[Check; 4], Error> {
    let mut unfused = lab.unfused()?;
    let judged = lab.options.bench && !lab.options.fast;
    let mut tries = 1;
    loop {
        let ours = capture(lab, candidate, 0, TOKENS_CHECK_MIN)?;
        let theirs = capture(lab, &mut *unfused, 0, TOKENS_CHECK_MIN)?;
        let [phases, bytes] =
            [("trace: phases", ours.phases, theirs.phases), ("trace: bytes", ours.bytes, theirs.bytes)].map(
                |(name, ours, theirs)| {
                    // The same numbers, but perhaps not added in the same order.
                    let ours = if (ours - theirs).abs() <= 1e-9 * theirs { theirs } else { ours };
                    Check::at_most(name, ours, theirs, "per token; allowed: the unfused path's")
                },
            );
        let pairs = [
            ("trace: idle", ours.idle, theirs.idle),
            ("trace: expert idle", ours.expert_idle, theirs.expert_idle),
        ];
        let idle = pairs.map(|(name, mine, other)| idle(name, (mine, &ours), (other, &theirs)));
        if judged && tries < TRIES && idle.iter().any(|check| check.verdict == Verdict::Failed) {
            tries += 1;
            continue;
        }
        let why = "times are judged neither with --fast nor with --no-bench";
        let [idle, expert_idle] = idle.map(|check| if judged { check } else { check.told_only(why) });
        return Ok([phases, bytes, idle, expert_idle]);
    }
}

/// Idle time of a token in units of the unfused token's duration: a share of its own would grow by every ns
/// of work saved.
fn idle(name: &'static str, (ours, token): (Spread, &Summary), (theirs, other): (Spread, &Summary)) -> Check {
    let scale = token.wall_ns.median / other.wall_ns.median;
    let allowed = theirs.p90 + IDLE_MARGIN + (ours.median - ours.p10) * scale;
    let detail = format!(
        "of the unfused token's time, median of {} tokens; unfused {:.3}",
        token.subject.tokens, theirs.median
    );
    Check::at_most(name, ours.median * scale, allowed, detail)
}

/// Against a stored summary, by the rules of `amoeba trace --check`.
fn against_baseline(lab: &Lab<'_>, baseline: &Summary) -> Result<Check, Error> {
    let (depth, tokens) = (baseline.subject.depth, baseline.subject.tokens);
    let context = lab.plan.spec.context_max.min(depth + tokens + 64);
    let mut candidate = lab.candidate(|load| load.context = Some(context))?;
    let mut tries = 1;
    loop {
        let found = capture(lab, &mut *candidate, depth, tokens)?;
        let unlike = found.unlike(baseline);
        if !unlike.is_empty() {
            return Err(Error::Baseline(unlike.join("; ")));
        }
        let mut grew = found.grew(baseline);
        if lab.options.fast || !lab.options.bench {
            grew.retain(|growth| !growth.noisy);
        }
        if tries < TRIES && !grew.is_empty() && grew.iter().all(|growth| growth.noisy) {
            tries += 1;
            continue;
        }
        let detail: Vec<String> = grew.iter().map(ToString::to_string).collect();
        let detail = if grew.is_empty() { "nothing grew".to_owned() } else { detail.join("; ") };
        return Ok(Check::none_wrong(BASELINE, grew.len(), detail));
    }
}
