//! What the code costs, by crate and by purpose; each purpose has a limit of its own, so that what grows is
//! seen.
use crate::files;
use crate::tidy::{RustFile, rust_files};
use std::collections::BTreeMap;
use std::path::Path;

/// What lines are for, and how many there may be. Rust: neither blank lines nor comments; kernels: all lines.
/// Product and tests had 30,000 and 16,000 while the product read tidy folders only; who raises a limit again
/// says what for.
const LIMITS: &[(&str, usize)] =
    &[("product", 33_000), ("harness and tools", 9_000), ("tests", 17_500), ("kernels", 8_000)];

/// Code that measures, checks or maintains the product: beginnings of paths.
const TOOLS: &[&str] = &[
    "crates/harness/",
    "crates/kernels/src/experts/ladder/",
    "crates/amoeba/src/cli/bench.rs",
    "crates/amoeba/src/cli/device_floor.rs",
    "crates/amoeba/src/cli/dump.rs",
    "crates/amoeba/src/cli/eval.rs",
    "crates/amoeba/src/cli/gate.rs",
    "crates/amoeba/src/cli/plot.rs",
    "crates/amoeba/src/cli/synth.rs",
    "crates/amoeba/src/cli/trace.rs",
    "crates/amoeba/src/cli/verify.rs",
    "xtask/",
    "fuzz/",
];

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
    let families = rust.iter().filter(|f| f.name.starts_with("crates/plan/src/families"));
    println!("model families: {} lines", families.map(|f| count(f).code).sum::<usize>());
    if let Ok(binary) = root.join("target/release/amoeba").metadata() {
        println!("release binary: {:.1} MiB", binary.len() as f64 / (1 << 20) as f64);
    }
    let (tools, product): (Vec<&RustFile>, Vec<&RustFile>) = rust.iter().partition(|f| is_tool(&f.name));
    let code = |files: &[&RustFile]| files.iter().map(|f| count(f).code).sum();
    let kernels = names.iter().filter(|n| is_kernel(n)).filter_map(|n| files::text(root, n));
    let kernels = kernels.map(|text| text.lines().count()).sum();
    within(&[code(&product), code(&tools), total.tests, kernels])
}

/// Prints the lines of each purpose next to its limit; an error names all that are over.
fn within(lines: &[usize; LIMITS.len()]) -> Result<(), String> {
    let mut over = Vec::new();
    for ((what, max), lines) in LIMITS.iter().zip(lines) {
        println!("{what}: {lines} of at most {max} lines");
        if lines > max {
            over.push(format!("{what} has {lines} lines, at most {max}"));
        }
    }
    if over.is_empty() { Ok(()) } else { Err(format!("size: {}", over.join("; "))) }
}

fn is_tool(name: &str) -> bool {
    TOOLS.iter().any(|prefix| name.starts_with(prefix)) || files::is_example(name)
}

fn count(file: &RustFile) -> Count {
    let mut c = Count { files: 1, ..Count::default() };
    for line in file.lines().iter().filter(|line| line.is_code()) {
        if file.is_test || line.test {
            c.tests += 1;
        } else {
            c.code += 1;
        }
        c.cases += usize::from(line.text.starts_with("#[test]"));
    }
    c
}

fn is_kernel(name: &str) -> bool {
    name.starts_with("crates/")
        && [".cu", ".cuh", ".h", ".wgsl", ".metal"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_tests_and_cases_are_told_apart() {
        let text =
            "//! Docs.\n\nfn a() {}\n// note\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n";
        let file = RustFile { name: "crates/x/src/a.rs".into(), text: text.into(), is_test: false };
        let c = count(&file);
        assert_eq!((c.code, c.tests, c.cases), (1, 5, 1));
    }

    #[test]
    fn every_purpose_has_its_limit() {
        assert!(within(&[30_000, 9_000, 16_000, 8_000]).is_ok());
        let over = within(&[1, 9_001, 1, 8_001]);
        assert_eq!(
            over,
            Err("size: harness and tools has 9001 lines, at most 9000; kernels has 8001 lines, at most 8000"
                .to_owned())
        );
    }

    #[test]
    fn tools_are_told_from_the_product() {
        assert!(is_tool("crates/harness/src/verify.rs"));
        assert!(is_tool("crates/amoeba/examples/chat.rs"));
        assert!(!is_tool("crates/amoeba/src/cli/run/mod.rs"));
    }
}
