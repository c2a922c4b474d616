//! Errors against the exact reference, op by op and for the block of experts, and of fused against unfused.

use amoeba_backend::Executable;
use amoeba_engine::{Activations, KvType};

use super::check::Check;
use super::lab::{Lab, rows};
use super::lockstep::{BLOCK, Lockstep, Tally, Worst};
use super::report::number;
use crate::Error;
use crate::numbers::{Distance, worse};
use crate::probe::{Recorder, points};

/// Normalised RMS that activations of f32 are allowed, for every op and for the block of experts.
const RMS_ALLOWED: f64 = 5e-4;
/// The same where numbers are kept in 16 bits.
const RMS_ALLOWED_16: f64 = 5e-3;
/// The largest of N normal errors is √(2 ln N) times their RMS: below 6 up to N = 6·10^7. More is an error of
/// few elements.
const MAX_OF_RMS: f64 = 6.0;
/// Normalised RMS of fused against unfused.
const BETWEEN_ALLOWED: f64 = 5e-3;

/// All errors.
pub fn check(lab: &Lab<'_>) -> Result<Vec<Check>, Error> {
    let found = tally(lab, &mut *lab.candidate(|_| {})?)?;
    let mut checks = op_checks(lab, &found);
    if !lab.has_experts() {
        let names =
            ["error: block rms", "error: block max", "error: unfused block rms", "error: fused - unfused"];
        checks.extend(names.map(|name| Check::skipped(name, "the model has no routed experts")));
        return Ok(checks);
    }
    checks.extend(block_checks(lab, &found));
    let mut unfused = lab.unfused()?;
    let block = tally(lab, &mut *unfused)?.kinds.remove(BLOCK).unwrap_or_default();
    let allowed = rms_allowed(lab, BLOCK);
    checks.push(Check::at_most("error: unfused block rms", block.distance.rms, allowed, block.rms_at));
    checks.push(between(lab, &mut *unfused)?);
    Ok(checks)
}

/// Follows an executable over text and over random tokens: a step of several rows, then steps of one.
fn tally(lab: &Lab<'_>, executable: &mut dyn Executable) -> Result<Tally, Error> {
    let mut lockstep = Lockstep::new(lab)?;
    for (name, steps) in inputs(lab) {
        let mut position = 0;
        for tokens in steps {
            let place = format!("{name}, step of {} at {position}", tokens.len());
            lockstep.step(executable, &rows(&tokens, 0, position), &place)?;
            position += tokens.len();
        }
    }
    Ok(lockstep.tally)
}

/// Tokens by step.
fn inputs(lab: &Lab<'_>) -> Vec<(String, Vec<Vec<u32>>)> {
    let [wide, single] = lab.effort.judged;
    let wide = wide.min(lab.chunk);
    let text = &lab.prompts[0];
    let tokens: Vec<u32> = text.tokens.iter().copied().cycle().take(wide + single).collect();
    let random = ("random tokens".to_owned(), lab.random(wide + single, 2));
    let steps = |tokens: Vec<u32>| {
        let (first, rest) = tokens.split_at(wide.min(tokens.len()));
        std::iter::once(first.to_vec()).chain(rest.iter().map(|&token| vec![token])).collect()
    };
    [(format!("prompt `{}`", text.name), tokens), random].map(|(name, t)| (name, steps(t))).into()
}

/// RMS that a kind of op is allowed.
pub fn rms_allowed(lab: &Lab<'_>, kind: &str) -> f64 {
    let coarse = match kind {
        "attention" => lab.options.load.kv != KvType::F32,
        "linear" | "head_linear" | "experts" | BLOCK => lab.options.load.activations != Activations::F32,
        _ => false,
    };
    if coarse { RMS_ALLOWED_16 } else { RMS_ALLOWED }
}

/// Largest error that a kind of op is allowed, in units of the RMS of the output.
pub fn max_allowed(lab: &Lab<'_>, kind: &str) -> f64 {
    MAX_OF_RMS * rms_allowed(lab, kind)
}

fn op_checks(lab: &Lab<'_>, found: &Tally) -> Vec<Check> {
    let ops: Vec<(&str, &Worst)> =
        found.kinds.iter().filter(|(kind, _)| **kind != BLOCK).map(|(kind, worst)| (*kind, worst)).collect();
    let worst = |size: fn(&Worst) -> f64| {
        let used = |(kind, worst): &(&str, &Worst)| size(worst) / rms_allowed(lab, kind);
        ops.iter().copied().reduce(|a, b| if worse(used(&b), used(&a)) { b } else { a })
    };
    let all: Vec<String> = ops.iter().map(|(kind, w)| format!("{kind} {}", number(w.distance.rms))).collect();
    let (Some(rms), Some(max)) = (worst(|w| w.distance.rms), worst(|w| w.distance.max)) else {
        return vec![Check::none_wrong("error: op rms", 1, "the step showed no op to the probe")];
    };
    let detail = format!("{} of {}; rms of all: {}", rms.0, rms.1.rms_at, all.join(", "));
    vec![
        Check::at_most("error: op rms", rms.1.distance.rms, rms_allowed(lab, rms.0), detail),
        Check::at_most(
            "error: op max",
            max.1.distance.max,
            max_allowed(lab, max.0),
            format!("{} of {}", max.0, max.1.max_at),
        ),
    ]
}

fn block_checks(lab: &Lab<'_>, found: &Tally) -> [Check; 2] {
    let block = found.kinds.get(BLOCK).cloned().unwrap_or_default();
    let note = match found.undecided {
        0 => String::new(),
        n => format!("; {n} rows left out: their choice of experts is a matter of rounding"),
    };
    let Distance { rms, max } = block.distance;
    [
        Check::at_most("error: block rms", rms, rms_allowed(lab, BLOCK), format!("{}{note}", block.rms_at)),
        Check::at_most("error: block max", max, max_allowed(lab, BLOCK), block.max_at),
    ]
}

/// Outputs of blocks and layers of both paths over the same tokens.
fn between(lab: &Lab<'_>, unfused: &mut dyn Executable) -> Result<Check, Error> {
    let mut fused = lab.candidate(|_| {})?;
    let (mut worst, mut at) = (0.0, "all equal".to_owned());
    for (name, steps) in inputs(lab) {
        let mut position = 0;
        for tokens in steps {
            let rows = rows(&tokens, 0, position);
            let mut seen = Vec::new();
            for executable in [&mut *fused, unfused] {
                let points = points(&lab.plan).into_iter().filter(|point| point.what != "moe.route");
                let mut recorder = Recorder::new(points.collect(), rows.len());
                executable.step(&rows, Some(&mut recorder))?;
                seen.push(recorder.into_parts().collect::<Vec<_>>());
            }
            for ((point, fused), (_, unfused)) in seen[0].iter().zip(&seen[1]) {
                let found = Distance::of(fused, unfused, 0.0).rms;
                if worse(found, worst) {
                    (worst, at) =
                        (found, format!("{} of layer {}, {name} at {position}", point.what, point.layer));
                }
            }
            position += rows.len();
        }
    }
    Ok(Check::at_most("error: fused - unfused", worst, BETWEEN_ALLOWED, at))
}
