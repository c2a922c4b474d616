//! What the code costs: lines per crate, kernel sources, tests, the release binary; the limits are enforced.
use crate::files;
use crate::tidy::{RustFile, rust_files};
use std::collections::BTreeMap;
use std::path::Path;

/// Most lines of Rust, tests included, blank lines and comments left out.
const RUST_LINES_MAX: usize = 50_000;
/// Most lines of kernel source (CUDA, WGSL, Metal), counted the same way.
const KERNEL_LINES_MAX: usize = 8_000;

#[derive(Default, Clone, Copy)]
struct Count {
    files: usize,
    code: usize,
    tests: usize,
    cases: usize,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.files += other.files;
        self.code += other.code;
        self.tests += other.tests;
        self.cases += other.cases;
    }
}

/// Prints the table; an error when a limit is broken.
pub fn run(root: &Path) -> Result<(), String> {
    let names = files::list(root);
    let rust = rust_files(root, &names);
    let mut crates: BTreeMap<&str, Count> = BTreeMap::new();
    for file in &rust {
        crates.entry(files::crate_of(&file.name).unwrap_or("other")).or_default().add(count(file));
    }
    let mut total = Count::default();
    println!("{:12} {:>6} {:>8} {:>8} {:>7}", "crate", "files", "code", "tests", "cases");
    for (name, c) in &crates {
        println!("{name:12} {:>6} {:>8} {:>8} {:>7}", c.files, c.code, c.tests, c.cases);
        total.add(*c);
    }
    println!("{:12} {:>6} {:>8} {:>8} {:>7}", "total", total.files, total.code, total.tests, total.cases);
    let kernels = names.iter().filter(|n| is_kernel(n)).filter_map(|n| files::text(root, n));
    let kernel_lines: usize = kernels.map(|text| shader_lines(&text)).sum();
    let families = rust.iter().filter(|f| f.name.starts_with("crates/plan/src/families"));
    println!("model families: {} lines", families.map(|f| count(f).code).sum::<usize>());
    if let Ok(binary) = root.join("target/release/amoeba").metadata() {
        println!("release binary: {:.1} MiB", binary.len() as f64 / (1 << 20) as f64);
    }
    within("Rust", total.code + total.tests, RUST_LINES_MAX)?;
    within("kernel source", kernel_lines, KERNEL_LINES_MAX)
}

fn within(what: &str, lines: usize, max: usize) -> Result<(), String> {
    println!("{what}: {lines} of at most {max} lines");
    if lines <= max { Ok(()) } else { Err(format!("size: {what} has {lines} lines, at most {max}")) }
}

fn count(file: &RustFile) -> Count {
    let mut c = Count { files: 1, ..Count::default() };
    for index in (0..file.source.code.len()).filter(|&i| file.source.is_code(i)) {
        if file.in_test(index) {
            c.tests += 1;
        } else {
            c.code += 1;
        }
        c.cases += usize::from(file.source.code[index].trim_start().starts_with("#[test]"));
    }
    c
}

fn is_kernel(name: &str) -> bool {
    name.starts_with("crates/") && [".cu", ".cuh", ".wgsl", ".metal"].iter().any(|end| name.ends_with(end))
}

/// Lines of a C-like source that are neither blank nor comment.
fn shader_lines(text: &str) -> usize {
    let mut inside = false;
    let mut lines = 0;
    for line in text.lines().map(str::trim) {
        let opens = line.starts_with("/*");
        let comment = inside || opens || line.starts_with("//");
        lines += usize::from(!line.is_empty() && !comment);
        inside = (inside || opens) && !line.contains("*/");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Source;

    #[test]
    fn code_tests_and_cases_are_told_apart() {
        let text =
            "//! Docs.\n\nfn a() {}\n// note\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n";
        let source = Source::new(text);
        let file = RustFile { name: "crates/x/src/a.rs".into(), text: text.into(), source, is_test: false };
        let c = count(&file);
        assert_eq!((c.code, c.tests, c.cases), (1, 5, 1));
    }

    #[test]
    fn shader_comments_and_blanks_are_free() {
        assert_eq!(shader_lines("// a\n\n/* b\n c */\nint x; // d\n}\n"), 2);
    }

    #[test]
    fn a_broken_limit_is_an_error() {
        assert!(within("x", 10, 10).is_ok());
        assert_eq!(within("x", 11, 10), Err("size: x has 11 lines, at most 10".to_owned()));
    }
}
