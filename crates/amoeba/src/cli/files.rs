//! Files that verbs read and write, with faults that name the file.
use std::path::Path;

use amoeba_harness::bench::{BenchRow, parse_rows};
use amoeba_harness::trace::{Summary, TOKENS_CHECK_MIN};

use super::failure::{self, Failure};

/// Opens the file as it is, so that a wrong name is reported before everything is measured and not after.
pub fn check_writable(file: &Path) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).map_err(|error| unwritable(file, &error))
}

/// Writes a whole file.
pub fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| unwritable(file, &error))
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(failure::FAILED, format!("{}: cannot be written: {error}", file.display()))
}

fn misread(file: &Path, what: &str) -> Failure {
    Failure::usage(format!("{}: {what}", file.display()))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| misread(file, &format!("cannot be read: {error}")))
}

/// Rows of `bench`.
pub fn read_rows(file: &Path) -> Result<Vec<BenchRow>, Failure> {
    parse_rows(&read(file)?).map_err(|what| misread(file, &what))
}

/// A baseline that can be checked against.
pub fn read_baseline(file: &Path) -> Result<Summary, Failure> {
    let fault = |what: String| misread(file, &what);
    let summary = Summary::baseline(&read(file)?).map_err(fault)?;
    let tokens = summary.subject.tokens;
    if !(TOKENS_CHECK_MIN..=4096).contains(&tokens) {
        return Err(fault(format!("has {tokens} tokens; {TOKENS_CHECK_MIN} to 4096 can be checked")));
    }
    Ok(summary)
}
