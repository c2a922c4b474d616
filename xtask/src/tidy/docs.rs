//! Documents: links and named paths must exist; no file may name the folders of a private workplace.
use super::Fault;
use crate::files;
use std::path::{Component, Path, PathBuf};

/// Words that no text file may contain: they name places that only one machine has.
const FORBIDDEN: &[&str] = &[concat!("/wo", "rk/"), concat!("../sha", "red")];

/// Folders whose paths, when a document names them in backticks, must exist.
const ROOTS: &[&str] =
    &["crates/", "xtask/", "docs/", "fixtures/", "models/", ".ci/", ".config/", "fuzz/", "tests/"];

/// Checks all documents, and all text files for forbidden words.
pub fn check(root: &Path, names: &[String]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for name in names {
        let Some(text) = files::text(root, name) else { continue };
        for (index, line) in text.lines().enumerate() {
            for word in FORBIDDEN.iter().filter(|w| line.contains(**w)) {
                faults.push(Fault::new(name, index + 1, "forbidden-word", format!("`{word}`")));
            }
        }
        if name.ends_with(".md") {
            faults.extend(dead_paths(root, name, &text));
        }
    }
    faults
}

fn dead_paths(root: &Path, name: &str, text: &str) -> Vec<Fault> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut faults = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let links = links(line).into_iter().map(|t| folder.join(t));
            let named = named_paths(line).into_iter().map(PathBuf::from);
            for path in links.chain(named).filter(|path| !exists(root, path)) {
                let message = format!("`{}` does not exist", path.display());
                faults.push(Fault::new(name, index + 1, "dead-path", message));
            }
        }
    }
    faults
}

/// Whether the path exists inside the repository; a path that climbs out of it does not.
fn exists(root: &Path, path: &Path) -> bool {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if !clean.pop() => return false,
            Component::Normal(p) => clean.push(p),
            _ => {}
        }
    }
    root.join(clean).exists()
}

/// Targets of `[text](target)` in the line that name files.
fn links(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let local = targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:") && !t.starts_with('#'));
    local.filter_map(|t| t.split('#').next()).filter(|t| !t.is_empty()).collect()
}

/// Paths of this repository that the line names in backticks, placeholders left out.
fn named_paths(line: &str) -> Vec<&str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let is_path = |t: &&str| {
        ROOTS.iter().any(|root| t.starts_with(root)) && !t.contains(['<', '*', '{', ' ', '…', '$', ':'])
    };
    quoted.filter(is_path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_and_others_left_alone() {
        let line = "[a](docs/a.md#x \"t\") [b](https://x.y/z) [c](#c) ![d](../d.svg) [e](mailto:a@b)";
        assert_eq!(links(line), ["docs/a.md", "../d.svg"]);
        assert!(links("no link (here)").is_empty());
    }

    #[test]
    fn paths_in_backticks_are_checked_unless_they_are_patterns() {
        let line = "see `crates/plan/src/lib.rs`, `crates/<op>/x.rs`, `crates/*/src`, `cargo test`, crates/x";
        assert_eq!(named_paths(line), ["crates/plan/src/lib.rs"]);
    }

    #[test]
    fn dead_paths_are_reported_with_their_line_but_not_in_code_blocks() {
        let text = "ok [x](Cargo.toml)\n```text\n[x](gone.md)\n```\nbad [x](gone.md) and `docs/gone.md`\n";
        let lines: Vec<usize> =
            dead_paths(&files::root(), "README.md", text).iter().map(|f| f.line).collect();
        assert_eq!(lines, [5, 5]);
    }

    #[test]
    fn a_link_may_climb_inside_the_repository_but_not_out_of_it() {
        assert!(exists(&files::root(), Path::new("docs/../Cargo.toml")));
        assert!(!exists(&files::root(), Path::new("../anything")));
    }
}
