//! Which files belong to the repository, and what kind each is.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository root: the parent of this crate's folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder that cargo builds into: this program lies in its `debug`.
pub fn build_folder() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let folder = program.ancestors().nth(2).ok_or("this program is not in a build folder")?;
    Ok(folder.to_path_buf())
}

/// Files that are tracked or could be (not ignored), relative to `root`, sorted; without git, all but
/// `target`.
pub fn list(root: &Path) -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let mut found = BTreeSet::new();
    match git {
        Ok(out) if out.status.success() => {
            let names = String::from_utf8_lossy(&out.stdout).into_owned();
            found.extend(names.split('\0').filter(|n| !n.is_empty()).map(str::to_owned));
        }
        _ => walk(root, root, &mut found),
    }
    found.into_iter().filter(|name| root.join(name).is_file()).collect()
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || name == "target" || name == ".git" {
            continue;
        } else if path.is_dir() {
            walk(root, &path, found);
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// The file's text, or `None` when it is binary or not UTF-8.
pub fn text(root: &Path, name: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(name)).ok()?;
    if bytes.iter().take(8192).any(|&b| b == 0) {
        return None;
    }
    String::from_utf8(bytes).ok()
}

/// The crate that a file belongs to: `crates/plan/src/lib.rs` → `plan`, `xtask/…` → `xtask`.
pub fn crate_of(name: &str) -> Option<&str> {
    match name.strip_prefix("crates/") {
        Some(rest) => rest.split('/').next(),
        None => {
            name.split_once('/').map(|(top, _)| top).filter(|top| matches!(*top, "xtask" | "fuzz" | "tests"))
        }
    }
}

/// Whether the path alone says that a Rust file is test code.
pub fn is_test_path(name: &str) -> bool {
    in_folder(name, "tests") || name.ends_with("/tests.rs")
}

/// Whether the file is an example or a bench: code that is run by hand.
pub fn is_example(name: &str) -> bool {
    in_folder(name, "examples") || in_folder(name, "benches")
}

fn in_folder(name: &str, folder: &str) -> bool {
    name.rsplit_once('/').is_some_and(|(folders, _)| folders.split('/').any(|part| part == folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_crate_and_whether_it_is_a_test() {
        assert_eq!(crate_of("crates/plan/src/lib.rs"), Some("plan"));
        assert_eq!(crate_of("xtask/src/main.rs"), Some("xtask"));
        assert_eq!(crate_of("README.md"), None);
        assert!(is_test_path("crates/hub/tests/pull.rs"));
        assert!(is_test_path("crates/plan/src/program/tests.rs"));
        assert!(!is_test_path("crates/plan/src/latests/x.rs"));
    }
}
