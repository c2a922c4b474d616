//! Fused against unfused decode, in pairs of runs that take turns, so that drift of the machine hits both
//! alike.

use amoeba_backend::Executable;

use super::check::Check;
use super::lab::{Lab, rows};
use crate::Error;
use crate::bench::Spread;

/// Share of the unfused time that fused decode may take.
const RATIO_MAX: f64 = 1.05;
const NAME: &str = "speed: fused / unfused time";

/// The ratio of times; judged only with repetitions enough to tell a spread.
pub fn check(lab: &Lab<'_>) -> Result<Vec<Check>, Error> {
    if !lab.options.bench {
        return Ok(vec![Check::skipped(NAME, "not asked for (--no-bench)")]);
    }
    if !lab.has_experts() {
        return Ok(vec![Check::skipped(NAME, "the model has no routed experts")]);
    }
    let [tokens, pairs] = lab.effort.bench;
    let tokens = lab.random(tokens + 1, 6);
    let mut both = [lab.candidate(|_| {})?, lab.unfused()?];
    for executable in &mut both {
        time(lab, &mut **executable, &tokens)?;
    }
    let mut times = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        let mut ns = [0; 2];
        for turn in 0..2 {
            let side = (pair + turn) % 2;
            ns[side] = time(lab, &mut *both[side], &tokens)?;
        }
        times.push(ns);
    }
    let check = judge(&times, tokens.len() - 1);
    Ok(vec![if lab.options.fast { check.told_only("--fast measures too briefly") } else { check }])
}

/// Nanoseconds of decoding all tokens but the first, which is there before.
fn time(lab: &Lab<'_>, executable: &mut dyn Executable, tokens: &[u32]) -> Result<u64, Error> {
    executable.step(&rows(&tokens[..1], 0, 0), None)?;
    let started = (lab.options.clock)();
    for (position, token) in tokens.iter().enumerate().skip(1) {
        executable.step(&rows(&[*token], 0, position), None)?;
    }
    Ok((lab.options.clock)().saturating_sub(started))
}

/// Fails if nine pairs in ten say that fused is slower than allowed: a verdict that the spread does not
/// explain.
fn judge(times: &[[u64; 2]], tokens: usize) -> Check {
    let ratio = |[fused, unfused]: &[u64; 2]| *fused as f64 / (*unfused).max(1) as f64;
    let Spread { median, p10, p90 } = Spread::of_values(times.iter().map(ratio).collect());
    let per_token = |side: usize| {
        let all: Vec<u64> = times.iter().map(|pair| pair[side]).collect();
        Spread::of(&all).median / 1e3 / tokens.max(1) as f64
    };
    let detail = format!(
        "p10; median {median:.3}, p90 {p90:.3}, {} pairs of {tokens} tokens; {:.1} against {:.1} µs per \
         token",
        times.len(),
        per_token(0),
        per_token(1)
    );
    Check::at_most(NAME, p10, RATIO_MAX, detail)
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn a_slow_path_fails_and_a_noisy_one_does_not() {
        let verdict = |fused: [u64; 7]| judge(&fused.map(|ns| [ns, 1000]), 4).verdict;
        assert_eq!(verdict([900; 7]), Verdict::Passed);
        assert_eq!(verdict([1049; 7]), Verdict::Passed);
        assert_eq!(verdict([1060, 1070, 1080, 1090, 1100, 1110, 1120]), Verdict::Failed);
        // As slow in the median, but some pairs say otherwise.
        assert_eq!(verdict([900, 950, 1080, 1090, 1100, 1500, 2000]), Verdict::Passed);
    }
}
