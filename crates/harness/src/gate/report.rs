//! The verdict on a model: one page of Markdown, or JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::check::{Check, Verdict};
use crate::bench::{BenchModel, Build};

/// All checks of one model on one device.
#[derive(Clone, Debug)]
pub struct Report {
    /// The program.
    pub build: Build,
    /// Name, hash, formats.
    pub model: BenchModel,
    /// Device, instruction set, workers.
    pub device: String,
    /// Path of a decode step, and why.
    pub path: String,
    /// What it was held against.
    pub against: String,
    /// In the order in which they ran.
    pub checks: Vec<Check>,
    /// How long all of it took.
    pub seconds: f64,
}

impl Report {
    /// No check failed, and not all were skipped.
    pub fn passed(&self) -> bool {
        self.count(Verdict::Failed) == 0 && self.count(Verdict::Passed) > 0
    }

    /// Names of the checks that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = self.checks.iter().filter(|check| check.verdict == Verdict::Failed);
        failed.map(|check| check.name).collect()
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }

    /// One page.
    pub fn markdown(&self) -> String {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let dirty = if self.build.dirty { " (dirty)" } else { "" };
        let mut text = format!("# gate: {} {verdict}\n\n", self.model.name);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- on {}, decode {}, held against {}", self.device, self.path, self.against);
        let _ = writeln!(
            text,
            "- model {}, {}; amoeba {} {}{dirty}",
            self.model.hash,
            self.model.formats.join(" + "),
            self.build.version,
            self.build.commit
        );
        let counts = [Verdict::Passed, Verdict::Failed, Verdict::Skipped].map(|verdict| self.count(verdict));
        let [passed, failed, skipped] = counts;
        let _ = writeln!(
            text,
            "- {} checks: {passed} passed, {failed} failed, {skipped} skipped, in {:.1} s\n",
            self.checks.len(),
            self.seconds
        );
        text += "| check | verdict | measured | allowed | used | |\n|---|---|---:|---:|---:|---|\n";
        for check in &self.checks {
            let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
            let used = check.used().map_or_else(|| "–".to_owned(), |used| format!("{} %", percent(used)));
            let Check { name, verdict, detail, .. } = check;
            let detail = detail.replace('|', "\\|").replace('\n', " ");
            let (measured, allowed) = (cell(check.measured), cell(check.allowed));
            let _ = writeln!(text, "| {name} | {verdict} | {measured} | {allowed} | {used} | {detail} |");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(check_json).collect();
        json!({
            "version": self.build.version, "commit": self.build.commit, "dirty": self.build.dirty,
            "rustc": self.build.rustc,
            "model": self.model.name, "model_hash": self.model.hash, "formats": self.model.formats,
            "device": self.device, "path": self.path, "against": self.against,
            "passed": self.passed(), "checks": checks, "seconds": self.seconds,
        })
    }
}

fn check_json(check: &Check) -> Value {
    // JSON has no infinity and no NaN: they become null, and `verdict` says what they meant.
    json!({
        "name": check.name, "verdict": check.verdict.to_string().to_lowercase(), "measured": check.measured,
        "allowed": check.allowed, "used": check.used(), "detail": check.detail,
    })
}

/// `0`, `12`, `0.953` or `3.1e-7`.
pub fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        _ if x.fract() == 0.0 && x.abs() < 1e9 => format!("{x}"),
        size if (0.01..1000.0).contains(&size) => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}

fn percent(used: f64) -> String {
    match used.abs() * 100.0 {
        0.0 => "0".to_owned(),
        few if few < 10.0 => format!("{:.2}", used * 100.0),
        some if some < 1000.0 => format!("{:.1}", used * 100.0),
        _ => format!("{:.0}", used * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 12.0, 0.9531, 3.14e-7, 1234.5].map(number), ["0", "12", "0.953", "3.1e-7", "1.2e3"]);
        assert_eq!([0.0004, 0.123, 20.0].map(percent), ["0.04", "12.3", "2000"]);
    }

    #[test]
    fn what_is_not_a_number_fails() {
        assert_eq!(Check::at_most("x", f64::NAN, 1.0, "").verdict, Verdict::Failed);
        assert_eq!(Check::at_most("x", 1.0, 1.0, "").verdict, Verdict::Passed);
        assert_eq!(Check::none_wrong("x", 1, "").verdict, Verdict::Failed);
        assert_eq!(Check::none_wrong("x", 0, "").used(), None);
    }
}
