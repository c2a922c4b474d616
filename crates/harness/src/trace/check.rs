//! A summary held against a stored one: what grew, or why the two cannot be compared.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

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
/// Version of the stored form.
const SCHEMA: u64 = 1;

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
                ("tokens", s.tokens.to_string(), s.tokens.to_string()),
            ]
        };
        let pairs = of(self).into_iter().zip(of(baseline));
        let unlike = pairs.filter(|((_, _, here), (_, _, there))| here != there);
        let mut found: Vec<String> = unlike
            .map(|((what, here, _), (_, there, _))| format!("{what} is {here} here and {there} there"))
            .collect();
        if self.tokens < TOKENS_CHECK_MIN {
            found.push(format!("{} tokens tell no spread: take at least {TOKENS_CHECK_MIN}", self.tokens));
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

    /// The summary as JSON: what a baseline file holds.
    pub fn json(&self) -> Value {
        let Subject { model, model_hash, device, device_detail, workers, path, path_reason, kv, .. } =
            &self.subject;
        let (build, host) = (&self.subject.build, &self.subject.host);
        let spread = |s: &Spread| json!({ "median": s.median, "p10": s.p10, "p90": s.p90 });
        let lanes = self.workers.iter().map(|w| json!({ "busy_ns": w.busy_ns, "idle_ns": w.idle_ns }));
        let ops = self.ops.iter().map(|op| {
            json!({
                "label": op.label, "ops": op.ops, "busy_ns": op.busy_ns, "wall_ns": op.wall_ns,
                "bytes": op.bytes, "wait_ns": op.wait_ns, "expert_wait_ns": op.expert_wait_ns,
            })
        });
        json!({
            "schema": SCHEMA, "kind": "amoeba trace",
            "model": model, "model_hash": model_hash, "device": device, "device_detail": device_detail,
            "workers": workers, "path": path, "path_reason": path_reason, "kv_type": kv,
            "activations": self.subject.activations,
            "depth": self.subject.depth, "tokens": self.tokens,
            "version": build.version, "commit": build.commit, "dirty": build.dirty, "rustc": build.rustc,
            "cpu": host.cpu, "cores": host.cores, "isa": host.isa, "os": host.os,
            "phases_per_token": self.phases, "bytes_per_token": self.bytes,
            "wall_ns": spread(&self.wall_ns), "idle_share": spread(&self.idle),
            "expert_idle_share": spread(&self.expert_idle), "tick_ns": self.tick_ns,
            "per_worker": lanes.collect::<Vec<_>>(), "per_op": ops.collect::<Vec<_>>(),
        })
    }

    /// Reads what [`Summary::json`] wrote, but for the tables per worker and op.
    ///
    /// # Errors
    /// What is missing or impossible.
    pub fn from_json(value: &Value) -> Result<Summary, String> {
        let missing = |key: &str| format!("no `{key}`: write the file with `amoeba trace --save-baseline`");
        if value["kind"] != "amoeba trace" || value["schema"] != SCHEMA {
            return Err(format!(
                "is not a baseline of schema {SCHEMA}: write it with `amoeba trace --save-baseline`"
            ));
        }
        let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| missing(key));
        let count = |key: &str| {
            let number = value[key].as_u64().and_then(|n| usize::try_from(n).ok());
            number.ok_or_else(|| missing(key))
        };
        let positive = |value: &Value, key: &str| {
            value[key].as_f64().filter(|x| x.is_finite() && *x >= 0.0).ok_or_else(|| missing(key))
        };
        let spread = |key: &str| -> Result<Spread, String> {
            let of = |part| positive(&value[key], part).map_err(|_| missing(key));
            Ok(Spread { median: of("median")?, p10: of("p10")?, p90: of("p90")? })
        };
        let subject = Subject {
            model: text("model")?,
            model_hash: text("model_hash")?,
            device: text("device")?,
            device_detail: text("device_detail")?,
            workers: count("workers")?,
            path: text("path")?,
            path_reason: text("path_reason")?,
            kv: text("kv_type")?,
            activations: text("activations")?,
            depth: count("depth")?,
            ..Subject::default()
        };
        Ok(Summary {
            subject,
            tokens: count("tokens")?,
            wall_ns: spread("wall_ns")?,
            phases: positive(value, "phases_per_token")?,
            bytes: positive(value, "bytes_per_token")?,
            idle: spread("idle_share")?,
            expert_idle: spread("expert_idle_share")?,
            tick_ns: value["tick_ns"].as_u64().unwrap_or(0),
            workers: Vec::new(),
            ops: Vec::new(),
        })
    }
}
