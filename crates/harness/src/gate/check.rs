//! The common shape of all checks: what was measured, what is allowed, and the verdict.

use std::fmt;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within what is allowed.
    Passed,
    /// Beyond it.
    Failed,
    /// Not judged; the detail says why.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        })
    }
}

/// One judged quantity.
#[derive(Clone, Debug)]
pub struct Check {
    /// `group: quantity`; docs/gate.md has a row for each.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found, in the unit of the name.
    pub measured: Option<f64>,
    /// The most that passes.
    pub allowed: Option<f64>,
    /// Where the worst was found, what was compared, or why it was skipped.
    pub detail: String,
}

impl Check {
    /// Passes if `measured` is at most `allowed`; a NaN fails.
    pub fn at_most(name: &'static str, measured: f64, allowed: f64, detail: impl Into<String>) -> Check {
        let verdict = if measured <= allowed { Verdict::Passed } else { Verdict::Failed };
        let (measured, allowed) = (Some(measured), Some(allowed));
        Check { name, verdict, measured, allowed, detail: detail.into() }
    }

    /// Passes if nothing was found wrong.
    pub fn none_wrong(name: &'static str, wrong: usize, detail: impl Into<String>) -> Check {
        Check::at_most(name, wrong as f64, 0.0, detail)
    }

    /// Was not judged.
    pub fn skipped(name: &'static str, why: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Skipped, measured: None, allowed: None, detail: why.into() }
    }

    /// The same numbers, reported but not judged.
    #[must_use]
    pub fn told_only(self, why: &str) -> Check {
        Check { verdict: Verdict::Skipped, detail: format!("not judged: {why}; {}", self.detail), ..self }
    }

    /// Share of what is allowed that was used; `None` where nothing is allowed or nothing was measured.
    pub fn used(&self) -> Option<f64> {
        let (measured, allowed) = (self.measured?, self.allowed?);
        (allowed != 0.0).then(|| measured / allowed)
    }
}
