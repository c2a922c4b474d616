//! House rules that neither the compiler nor clippy can know; every fault is `file:line: rule: message`.
//!
//! A rule is a function from the repository's files to faults. Exceptions live in [`LONG_FILES`] with their reason;
//! the table only ever shrinks: an entry that is no longer needed is itself a fault.
mod devices;
mod docs;
mod layers;
mod rust;
mod safety;

use crate::files;
use crate::scan::Source;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// Most lines that a Rust file may have.
const FILE_LINES_MAX: usize = 400;

/// Files allowed to be longer: path, lines allowed, reason.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// One broken rule.
#[derive(Debug, PartialEq)]
pub struct Fault {
    file: String,
    line: usize,
    rule: &'static str,
    message: String,
}

impl Fault {
    fn new(file: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Fault { file: file.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.message)
    }
}

/// A Rust file of the repository.
pub struct RustFile {
    /// Path relative to the root.
    pub name: String,
    /// The text as it is.
    pub text: String,
    /// The text, masked.
    pub source: Source,
    /// Whether all of it is test code.
    pub is_test: bool,
}

impl RustFile {
    /// Whether line `index` (from 0) is test code.
    pub fn in_test(&self, index: usize) -> bool {
        self.is_test || self.source.test.get(index).copied().unwrap_or(false)
    }
}

/// Reads and scans the Rust files among `names`; a file declared `#[cfg(test)] mod x;` is test code too.
pub fn rust_files(root: &Path, names: &[String]) -> Vec<RustFile> {
    let mut all = Vec::new();
    for name in names.iter().filter(|n| n.ends_with(".rs")) {
        let Some(text) = files::text(root, name) else { continue };
        let source = Source::new(&text);
        all.push(RustFile { name: name.clone(), text, source, is_test: files::is_test_path(name) });
    }
    let declared: BTreeSet<String> = all.iter().flat_map(rust::test_modules).collect();
    for file in &mut all {
        let under = |module: &String| match file.name.strip_prefix(module.as_str()) {
            Some(rest) => rest.is_empty() || rest == ".rs" || rest.starts_with('/'),
            None => false,
        };
        file.is_test |= declared.iter().any(under);
    }
    all
}

/// Checks every rule, prints the faults and the inventory of unsafe code.
pub fn run(root: &Path) -> Result<(), String> {
    let names = files::list(root);
    let rust = rust_files(root, &names);
    let mut faults = Vec::new();
    for file in &rust {
        faults.extend(long_file(file));
        faults.extend(rust::check(file));
        faults.extend(safety::check(file));
        faults.extend(devices::check(file));
    }
    faults.extend(stale_exceptions(&rust));
    faults.extend(layers::check(root, &names));
    faults.extend(docs::check(root, &names));
    print!("{}", safety::inventory(&rust));
    for fault in &faults {
        println!("{fault}");
    }
    println!("tidy: {} files, {} of them Rust, {} faults", names.len(), rust.len(), faults.len());
    if faults.is_empty() { Ok(()) } else { Err(format!("tidy: {} faults, listed above", faults.len())) }
}

fn long_file(file: &RustFile) -> Option<Fault> {
    let lines = file.text.lines().count();
    let allowed = LONG_FILES.iter().find(|e| e.0 == file.name).map_or(FILE_LINES_MAX, |e| e.1);
    let message = format!("{lines} lines, at most {allowed}: split it by what its parts do");
    (lines > allowed).then(|| Fault::new(&file.name, allowed + 1, "file-length", message))
}

fn stale_exceptions(rust: &[RustFile]) -> Vec<Fault> {
    let is_long = |name: &str| rust.iter().any(|f| f.name == name && f.text.lines().count() > FILE_LINES_MAX);
    let stale = LONG_FILES.iter().filter(|e| !is_long(e.0));
    stale.map(|e| Fault::new(e.0, 1, "file-length", "no longer long: drop it from LONG_FILES")).collect()
}

/// A file for the rules' own tests.
#[cfg(test)]
fn sample(name: &str, text: &str) -> RustFile {
    RustFile {
        name: name.to_owned(),
        text: text.to_owned(),
        source: Source::new(text),
        is_test: files::is_test_path(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_401_lines_is_a_fault_and_400_is_none() {
        let text = "//!\n".repeat(FILE_LINES_MAX);
        assert_eq!(long_file(&sample("a.rs", &text)), None);
        let fault = long_file(&sample("a.rs", &format!("{text}//!\n"))).unwrap();
        assert!(fault.to_string().starts_with("a.rs:401: file-length: 401 lines"), "{fault}");
    }
}
