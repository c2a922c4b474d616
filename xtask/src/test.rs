//! `cargo xtask test`: builds the tests of the workspace once and runs them, a line for each, then says which
//! skipped something and which took longest.
//!
//! With cargo-nextest, if it is installed: its report has the times. `cargo test` runs the same tests without
//! them.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use crate::command::{answers, cargo, finish};

/// What is built and run, all that only benches use included. Examples are left to `check`, which lints them.
pub const TARGETS: &[&str] =
    &["--workspace", "--lib", "--bins", "--tests", "--features", "amoeba-kernels/ladder"];
/// Where nextest writes what `.config/nextest.toml` asks for, below the folder of the build.
const JUNIT: &str = "nextest/default/junit.xml";
/// How a test that cannot run here starts the line that says why.
const SKIPPED: &str = "skipped: ";
/// How many of the slowest tests are shown.
const SLOWEST: usize = 10;

/// What a run of the tests gave.
pub struct Tests {
    /// The runner's own summary.
    pub summary: String,
    /// What was skipped, and the slowest tests.
    pub details: String,
}

/// Runs the tests.
pub fn run(root: &Path) -> Result<Tests, String> {
    if !answers("cargo", &["nextest", "--version"], "nextest") {
        println!(
            "cargo-nextest is not installed: `cargo test` runs the tests, without a table of the slowest and \
             a count of what was skipped"
        );
        return plain(root);
    }
    let report = crate::files::build_folder()?.join(JUNIT);
    let _ = std::fs::remove_file(&report);
    let mut args = vec!["nextest", "run"];
    args.extend(TARGETS);
    let mut summary = String::new();
    let child = cargo(root, &args).env("NEXTEST_SHOW_PROGRESS", "counter").stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| format!("cargo nextest: {e}"))?;
    echo(child.stderr.take(), |line| {
        if line.trim_start().starts_with("Summary [") {
            line.trim().clone_into(&mut summary);
        }
    });
    let status = child.wait();
    let cases = cases(&std::fs::read_to_string(&report).unwrap_or_default());
    let details = details(&cases);
    match finish(status, &args) {
        Ok(()) => Ok(Tests { summary, details }),
        Err(why) => Err(format!("{details}{why}\n{summary}")),
    }
}

/// The tests by `cargo test`, the result lines of its binaries added up.
fn plain(root: &Path) -> Result<Tests, String> {
    let mut args = vec!["test", "--no-fail-fast"];
    args.extend(TARGETS);
    let mut sum = [0; 3];
    let child = cargo(root, &args).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| format!("cargo test: {e}"))?;
    echo(child.stdout.take(), |line| {
        for (total, add) in sum.iter_mut().zip(tally(line)) {
            *total += add;
        }
    });
    let [passed, failed, ignored] = sum;
    let summary =
        format!("test result over all binaries: {passed} passed; {failed} failed; {ignored} ignored");
    let status = child.wait();
    finish(status, &args).map_err(|why| format!("{why}\n{summary}"))?;
    Ok(Tests { summary, details: String::new() })
}

/// Prints what a child writes, and hands each line on.
fn echo(pipe: Option<impl Read>, mut each: impl FnMut(&str)) {
    let Some(pipe) = pipe else { return };
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        println!("{line}");
        each(&line);
    }
}

/// Passed, failed and ignored of a `test result: ok. 3 passed; 0 failed; 1 ignored; …` line.
fn tally(line: &str) -> [u64; 3] {
    let Some(rest) = line.strip_prefix("test result: ") else { return [0; 3] };
    let words: Vec<&str> = rest.split([' ', ';']).filter(|w| !w.is_empty()).collect();
    ["passed", "failed", "ignored"].map(|what| {
        let number = words.iter().position(|w| *w == what).and_then(|at| words.get(at.checked_sub(1)?));
        number.and_then(|n| n.parse().ok()).unwrap_or(0)
    })
}

/// A test of the report.
#[derive(Debug, PartialEq)]
struct Case {
    name: String,
    seconds: f64,
    /// Why it skipped something.
    skipped: Option<String>,
}

/// The tests of a JUnit report as nextest writes it: one tag a line.
fn cases(report: &str) -> Vec<Case> {
    let mut found: Vec<Case> = Vec::new();
    for line in report.lines().map(str::trim) {
        if line.starts_with("<testcase ") {
            let name = format!("{} {}", attribute(line, "classname"), attribute(line, "name"));
            let seconds = attribute(line, "time").parse().unwrap_or(0.0);
            found.push(Case { name, seconds, skipped: None });
        } else if let (Some((_, why)), Some(case)) = (line.split_once(SKIPPED), found.last_mut()) {
            case.skipped = Some(why.trim_end_matches("</system-err>").trim().to_owned());
        }
    }
    found
}

/// The value of an attribute of a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let value = tag.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next());
    value.unwrap_or_default()
}

/// Skipped tests by reason, then the slowest.
fn details(cases: &[Case]) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for why in cases.iter().filter_map(|case| case.skipped.as_deref()) {
        *reasons.entry(why).or_default() += 1;
    }
    let mut text = String::new();
    if reasons.is_empty() && !cases.is_empty() {
        text += "no test skipped anything\n";
    }
    for (why, count) in reasons {
        text += &format!("tests skipped: {count}: {why}\n");
    }
    let mut slowest: Vec<&Case> = cases.iter().collect();
    slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    for case in slowest.iter().take(SLOWEST) {
        text += &format!("  {:>6.1} s  {}\n", case.seconds, case.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let line =
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.02s";
        assert_eq!(tally(line), [12, 0, 3]);
        assert_eq!(tally("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured"), [1, 2, 0]);
        assert_eq!(tally("running 4 tests"), [0, 0, 0]);
    }

    #[test]
    fn a_report_gives_times_and_what_was_skipped() {
        let report = "<testsuite name=\"k::e\" tests=\"2\">\n\
            <testcase name=\"a::b\" classname=\"k::e\" timestamp=\"x\" time=\"1.250\">\n\
            <system-err>skipped: no C++ compiler\n</system-err>\n</testcase>\n\
            <testcase name=\"c\" classname=\"k\" timestamp=\"x\" \
            time=\"2.000\">\n</testcase>\n</testsuite>\n";
        let cases = cases(report);
        assert_eq!(cases.len(), 2);
        assert_eq!((cases[0].name.as_str(), cases[0].seconds), ("k::e a::b", 1.25));
        assert_eq!(cases[0].skipped.as_deref(), Some("no C++ compiler"));
        let text = details(&cases);
        assert_eq!(text, "tests skipped: 1: no C++ compiler\n     2.0 s  k c\n     1.2 s  k::e a::b\n");
        assert_eq!(details(&[]), "");
    }
}
