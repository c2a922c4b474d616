//! House rules that neither the compiler nor clippy can know; every fault is `file:line: rule: message`.
//!
//! A rule is a function from the repository's files to faults. Exceptions live in [`LONG_FILES`] with their
//! reason; the table only ever shrinks: an entry that is no longer needed is itself a fault.
mod columns;
mod docs;
mod layers;
mod names;
mod safety;

use crate::files;
use crate::scan::{Line, lines};
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
    /// Whether all of it is test code.
    pub is_test: bool,
}

impl RustFile {
    /// What each line is.
    pub fn lines(&self) -> Vec<Line<'_>> {
        lines(&self.text)
    }
}

/// Reads the Rust files among `names`; a file declared `#[cfg(test)] mod x;` is test code too.
pub fn rust_files(root: &Path, names: &[String]) -> Vec<RustFile> {
    let mut all = Vec::new();
    for name in names.iter().filter(|n| n.ends_with(".rs")) {
        let Some(text) = files::text(root, name) else { continue };
        all.push(RustFile { name: name.clone(), text, is_test: files::is_test_path(name) });
    }
    let declared: BTreeSet<String> = all.iter().flat_map(test_modules).collect();
    for file in &mut all {
        let under = |module: &String| match file.name.strip_prefix(module.as_str()) {
            Some(rest) => rest.is_empty() || rest == ".rs" || rest.starts_with('/'),
            None => false,
        };
        file.is_test |= declared.iter().any(under);
    }
    all
}

/// Paths (without `.rs`) of the modules that the file declares under `#[cfg(test)]` without a body.
fn test_modules(file: &RustFile) -> Vec<String> {
    let (folder, stem) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
    let stem = stem.trim_end_matches(".rs");
    let home = match stem {
        "lib" | "main" | "mod" => folder.to_owned(),
        _ => format!("{folder}/{stem}"),
    };
    let mut found = Vec::new();
    for line in file.lines().iter().filter(|line| line.test || file.is_test) {
        if let Some((_, name)) = line.text.strip_suffix(';').and_then(|l| l.rsplit_once("mod ")) {
            found.push(format!("{home}/{name}"));
        } else if let Some(path) = line.text.strip_prefix("#[path = \"").and_then(|p| p.strip_suffix("\"]")) {
            found.push(resolved(folder, path));
        }
    }
    found
}

/// A relative path seen from a folder.
fn resolved(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in path.split('/') {
        match part {
            ".." => _ = parts.pop(),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Checks every rule, prints the faults and the inventory of unsafe code.
pub fn run(root: &Path) -> Result<(), String> {
    let names = files::list(root);
    let rust = rust_files(root, &names);
    let mut faults = Vec::new();
    for file in &rust {
        faults.extend(long_file(file));
        faults.extend(module_docs(file));
        faults.extend(safety::check(file));
    }
    faults.extend(stale_exceptions(&rust));
    faults.extend(names::check(&rust));
    faults.extend(layers::check(root, &names));
    faults.extend(docs::check(root, &names));
    faults.extend(columns::check(root, &names));
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

fn module_docs(file: &RustFile) -> Option<Fault> {
    let message = "starts without `//!`: say what the file owns";
    (!file.text.starts_with("//!")).then(|| Fault::new(&file.name, 1, "module-docs", message))
}

fn stale_exceptions(rust: &[RustFile]) -> Vec<Fault> {
    let is_long = |name: &str| rust.iter().any(|f| f.name == name && f.text.lines().count() > FILE_LINES_MAX);
    let stale = LONG_FILES.iter().filter(|e| !is_long(e.0));
    stale.map(|e| Fault::new(e.0, 1, "file-length", "no longer long: drop it from LONG_FILES")).collect()
}

/// A file for the rules' own tests.
#[cfg(test)]
fn sample(name: &str, text: &str) -> RustFile {
    RustFile { name: name.to_owned(), text: text.to_owned(), is_test: files::is_test_path(name) }
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

    #[test]
    fn a_file_without_module_docs_is_a_fault() {
        assert_eq!(module_docs(&sample("src/a.rs", "// x\n")).map(|fault| fault.rule), Some("module-docs"));
        assert_eq!(module_docs(&sample("src/a.rs", "//! x\n")), None);
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_found() {
        let text =
            "#[cfg(test)]\nmod cases;\nmod real;\n#[cfg(test)]\n#[path = \"../x_tests.rs\"]\nmod tests;\n";
        let declared = |name| test_modules(&sample(name, text));
        assert_eq!(declared("c/src/lib.rs"), ["c/src/cases", "c/x_tests.rs", "c/src/tests"]);
        assert_eq!(declared("c/src/x.rs"), ["c/src/x/cases", "c/x_tests.rs", "c/src/x/tests"]);
    }
}
