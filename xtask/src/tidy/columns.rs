//! Columns: no line of Rust, comments included, or of the CUDA sources is longer than `rustfmt.toml` says.
//! rustfmt leaves comments, texts and what macros are given as they are.
use std::path::Path;

use super::Fault;
use crate::files;

/// Most characters of a line, as `max_width` in `rustfmt.toml`.
const COLUMNS_MAX: usize = 110;

/// Checks every source.
pub fn check(root: &Path, names: &[String]) -> Vec<Fault> {
    let sources = names.iter().filter(|name| [".rs", ".cu", ".cuh"].iter().any(|end| name.ends_with(end)));
    let faults = |name: &String| {
        let lines = too_long(&files::text(root, name).unwrap_or_default());
        let fault = |(line, columns)| {
            Fault::new(name, line, "columns", format!("{columns} columns, at most {COLUMNS_MAX}: wrap it"))
        };
        lines.into_iter().map(fault).collect::<Vec<_>>()
    };
    sources.flat_map(faults).collect()
}

/// Number, from 1, and length of every line that is too long.
fn too_long(text: &str) -> Vec<(usize, usize)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.chars().count()));
    lines.filter(|(_, columns)| *columns > COLUMNS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_count_and_not_bytes() {
        let text = format!("{}\n// {}\n", "é".repeat(COLUMNS_MAX), "é".repeat(COLUMNS_MAX - 2));
        assert_eq!(too_long(&text), [(2, COLUMNS_MAX + 1)]);
    }
}
