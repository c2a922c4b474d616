//! Where `unsafe` may stand, and the inventory of all of it. That each use states its proof is clippy's to
//! check.
use super::{Fault, RustFile};
use std::fmt::Write;

/// Paths in which `unsafe` is allowed: a prefix, then text that the rest must contain.
const ALLOWED: &[(&str, &str)] = &[
    ("crates/checkpoint/src/shard.rs", ""),
    ("crates/kernels/src/", "cpu"),
    ("crates/kernels/src/simd", ""),
    ("crates/kernels/src/memory.rs", ""),
    ("crates/backend/src/cpu", ""),
    // Calls of the CUDA driver and of NVRTC, wrapped in safe functions.
    ("crates/backend-cuda/src/sys", ""),
];

fn is_allowed(name: &str) -> bool {
    ALLOWED.iter().any(|(prefix, part)| name.strip_prefix(prefix).is_some_and(|rest| rest.contains(part)))
}

/// Checks the place; test code is free to use it (for a counting allocator, say).
pub fn check(file: &RustFile) -> Vec<Fault> {
    if is_allowed(&file.name) || file.is_test {
        return Vec::new();
    }
    let lines = file.lines();
    let bad = lines.iter().enumerate().filter(|(_, line)| line.is_unsafe() && !line.test);
    bad.map(|(index, _)| {
        let message = "`unsafe` outside the files that may hold it (see ALLOWED in this rule)";
        Fault::new(&file.name, index + 1, "unsafe-place", message)
    })
    .collect()
}

/// One line per file that uses `unsafe`, with the number of lines that do.
pub fn inventory(files: &[RustFile]) -> String {
    let mut out = String::new();
    let mut total = 0;
    for file in files {
        let uses = file.lines().iter().filter(|line| line.is_unsafe()).count();
        if uses > 0 {
            let note = if file.is_test { " (tests)" } else { "" };
            let _ = writeln!(out, "  {uses:4}  {}{note}", file.name);
        }
        total += uses;
    }
    format!("unsafe inventory: {total} uses\n{out}")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn unsafe_is_bound_to_places() {
        let faults = |name: &str| check(&sample(name, "fn f() {\n    unsafe { x() }\n}\n"));
        for good in [
            "crates/checkpoint/src/shard.rs",
            "crates/kernels/src/experts/cpu.rs",
            "crates/kernels/src/simd/avx2.rs",
            "crates/backend/src/cpu/pool.rs",
            "crates/engine/tests/allocations.rs",
        ] {
            assert_eq!(faults(good), [], "{good}");
        }
        let faults = faults("crates/checkpoint/src/header.rs");
        assert_eq!((faults.len(), faults[0].line, faults[0].rule), (1, 2, "unsafe-place"));
    }

    #[test]
    fn the_inventory_counts_per_file() {
        let files = [sample("a.rs", "unsafe { x() }\nunsafe fn g() {}\n"), sample("b.rs", "fn f() {}\n")];
        assert_eq!(inventory(&files), "unsafe inventory: 2 uses\n     2  a.rs\n");
    }
}
