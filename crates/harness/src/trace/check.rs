//! A summary held against a stored one: what grew, or why the two cannot be compared.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::{CaptureOptions, Subject, Summary, Trace, capture_on, load};
use crate::Error;
use crate::bench::Spread;

/// Idle shares count as grown when their ranges (tenth to ninetieth percentile) lie apart by more than this.
pub const IDLE_MARGIN: f64 = 0.02;
/// Fewest tokens that tell a spread worth holding against another.
pub const TOKENS_CHECK_MIN: usize = 8;
/// Captures at most before idle time is believed to have grown.
pub const ATTEMPTS: u32 = 5;
/// Rest before the second of them; every further one waits twice as long.
const REST: Duration = Duration::from_millis(100);

/// One figure that became worse.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// The figure.
    pub what: &'static str,
    /// In the baseline: the count, or the median share.
    pub before: f64,
    /// The most that passes.
    pub allowed: f64,
    /// Now.
    pub now: f64,
    /// Whether noise of the machine may be the reason, so that a repetition may pass.
    pub noisy: bool,
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Growth { what, before, allowed, now, noisy } = self;
        if *noisy {
            let percent = |x: &f64| format!("{:.1} %", x * 100.0);
            let (before, allowed, now) = (percent(before), percent(allowed), percent(now));
            write!(f, "{what} grew from {before} to {now} of the workers' time ({allowed} would pass)")
        } else {
            write!(f, "{what} grew from {before:.0} to {now:.0}")
        }
    }
}

/// A capture held against a baseline.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The capture that counts.
    pub trace: Trace,
    /// It added up.
    pub summary: Summary,
    /// What is worse than in the baseline; nothing if it passed.
    pub grew: Vec<Growth>,
    /// Captures taken.
    pub attempts: u32,
}

/// Captures a model and holds it against a baseline. Other work on the machine can only add idle time, so
/// while that is all that grew the capture is repeated a little later, [`ATTEMPTS`] at most; the last one
/// counts.
///
/// # Errors
/// The baseline is of something else ([`Error::Baseline`]), or as [`super::capture()`].
pub fn check(dir: &Path, options: &CaptureOptions, baseline: &Summary) -> Result<Checked, Error> {
    let (mut executable, model) = load(dir, options)?;
    for attempts in 1.. {
        let trace = capture_on(&mut *executable, &model, options)?;
        let summary = trace.summary();
        let unlike = summary.unlike(baseline);
        if !unlike.is_empty() {
            return Err(Error::Baseline(unlike.join("; ")));
        }
        let grew = summary.grew(baseline);
        if grew.iter().all(|growth| growth.noisy) && !grew.is_empty() && attempts < ATTEMPTS {
            std::thread::sleep(REST * (1 << (attempts - 1)));
            continue;
        }
        return Ok(Checked { trace, summary, grew, attempts });
    }
    unreachable!("the last attempt returns")
}

impl Summary {
    /// What must agree and does not; empty if the two can be compared. Commit, compiler and host are free:
    /// counts do not depend on them, and idle time is compared as a share.
    pub fn unlike(&self, baseline: &Summary) -> Vec<String> {
        let of = |s: &Summary| {
            let Subject { model, model_hash, device, workers, path, kv, activations, depth, .. } = &s.subject;
            [
                ("model", format!("{model} (hash {model_hash})"), model_hash.clone()),
                ("device", device.clone(), device.clone()),
                ("workers", workers.to_string(), workers.to_string()),
                ("path", path.clone(), path.clone()),
                ("cache type", kv.clone(), kv.clone()),
                ("rounding of activations", activations.clone(), activations.clone()),
                ("depth", depth.to_string(), depth.to_string()),
                ("tokens", s.subject.tokens.to_string(), s.subject.tokens.to_string()),
            ]
        };
        let pairs = of(self).into_iter().zip(of(baseline));
        let unlike = pairs.filter(|((_, _, here), (_, _, there))| here != there);
        let mut found: Vec<String> = unlike
            .map(|((what, here, _), (_, there, _))| format!("{what} is {here} here and {there} there"))
            .collect();
        if self.subject.tokens < TOKENS_CHECK_MIN {
            found.push(format!(
                "{} tokens tell no spread: take at least {TOKENS_CHECK_MIN}",
                self.subject.tokens
            ));
        }
        found
    }

    /// Figures that are worse than in `baseline`, which must be like this. Phases and bytes may not grow at
    /// all; the share of idle time, and that on the way through the experts, may grow by the noise of both
    /// measurements: their ranges (tenth to ninetieth percentile over the tokens) may not lie apart by more
    /// than [`IDLE_MARGIN`].
    pub fn grew(&self, baseline: &Summary) -> Vec<Growth> {
        let count = |what, before: f64, now: f64| {
            // Sums of the same numbers in the same order: only the text form of a float is between them.
            let allowed = before * (1.0 + 1e-9);
            (now > allowed).then_some(Growth { what, before, allowed, now, noisy: false })
        };
        let share = |what, before: Spread, now: Spread| {
            // The whole range lies above: even the quietest tokens are worse.
            let allowed = before.p90 + IDLE_MARGIN + (now.median - now.p10);
            let (before, now) = (before.median, now.median);
            (now > allowed).then_some(Growth { what, before, allowed, now, noisy: true })
        };
        let found = [
            count("phases per token", baseline.phases, self.phases),
            count("bytes per token", baseline.bytes, self.bytes),
            share("idle time", baseline.idle, self.idle),
            share("idle time on the way through the experts", baseline.expert_idle, self.expert_idle),
        ];
        found.into_iter().flatten().collect()
    }

    /// Reads a baseline: the JSON of a summary; the tables per worker and op are left out.
    ///
    /// # Errors
    /// What is missing or impossible.
    pub fn baseline(text: &str) -> Result<Summary, String> {
        let hint = "write the file with `amoeba trace --save-baseline`";
        let read: Summary = serde_json::from_str(text).map_err(|error| {
            let what = if error.is_data() { "does not hold a baseline" } else { "is not JSON" };
            format!("{what}: {error}; {hint}")
        })?;
        let spreads = [read.wall_ns, read.idle, read.expert_idle];
        let mut figures = spreads.into_iter().flat_map(|Spread { median, p10, p90 }| [median, p10, p90]);
        let possible = |x: f64| x.is_finite() && x >= 0.0;
        if figures.all(possible) && possible(read.phases) && possible(read.bytes) {
            Ok(read)
        } else {
            Err(format!("has impossible figures: {hint}"))
        }
    }
}
