//! Where `unsafe` may stand, that each use states its proof, and the inventory of all of it.
use super::{Fault, RustFile};
use std::fmt::Write;

/// Paths in which `unsafe` is allowed: a prefix, then text that the rest must contain.
const ALLOWED: &[(&str, &str)] = &[
    ("crates/checkpoint/src/shard.rs", ""),
    ("crates/kernels/src/", "cpu"),
    ("crates/kernels/src/simd", ""),
    ("crates/kernels/src/memory.rs", ""),
    ("crates/backend/src/cpu", ""),
    // Calls of the CUDA driver and of NVRTC, behind safe functions.
    ("crates/backend-cuda/src/sys", ""),
];

fn is_allowed(name: &str) -> bool {
    ALLOWED.iter().any(|(prefix, part)| name.strip_prefix(prefix).is_some_and(|rest| rest.contains(part)))
}

/// Checks the file: place (test code is free to use it, for a counting allocator say) and stated proofs.
pub fn check(file: &RustFile) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, line) in file.source.code.iter().enumerate() {
        let Some(what) = first_use(line) else { continue };
        let mut fault = |rule, message: &str| faults.push(Fault::new(&file.name, index + 1, rule, message));
        if !is_allowed(&file.name) && !file.in_test(index) {
            fault("unsafe-place", "`unsafe` outside the files that may hold it (see ALLOWED in this rule)");
        }
        if matches!(what, Use::Proof) && !has_proof(file, index) {
            fault("unsafe-proof", "no `// SAFETY:` comment above: say why this is sound");
        }
    }
    faults
}

enum Use {
    /// A block or an implementation, which must state its proof.
    Proof,
    /// A declaration (`unsafe fn`, `unsafe trait`, `unsafe extern`), whose callers must.
    Declaration,
}

/// What the line does with the word `unsafe`, if anything. Attributes such as `#[unsafe(no_mangle)]` are not counted.
fn first_use(line: &str) -> Option<Use> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut uses = line.match_indices("unsafe").filter_map(|(at, word)| {
        let rest = &line[at + word.len()..];
        if line[..at].ends_with(is_word) || rest.starts_with(is_word) || rest.starts_with('(') {
            return None;
        }
        let rest = rest.trim_start();
        let proof = rest.starts_with('{') || rest.starts_with("impl") || rest.is_empty();
        Some(if proof { Use::Proof } else { Use::Declaration })
    });
    uses.next()
}

/// Whether a SAFETY comment stands on the line, or above the statement that the line belongs to.
fn has_proof(file: &RustFile, index: usize) -> bool {
    let says = |i: usize| file.source.comment[i].contains("SAFETY:");
    if says(index) {
        return true;
    }
    for above in (0..index).rev() {
        if says(above) {
            return true;
        }
        let code = file.source.code[above].trim();
        let comment = !file.source.comment[above].trim().is_empty();
        let ends = code.ends_with([';', '{', '}']) || (code.is_empty() && !comment);
        if ends && !code.starts_with("#[") {
            return false;
        }
    }
    false
}

/// One line per file that uses `unsafe`, with the number of lines that do.
pub fn inventory(files: &[RustFile]) -> String {
    let mut out = String::new();
    let mut total = 0;
    for file in files {
        let uses = file.source.code.iter().filter(|line| first_use(line).is_some()).count();
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

    fn rules(name: &str, text: &str) -> Vec<&'static str> {
        check(&sample(name, text)).iter().map(|f| f.rule).collect()
    }

    #[test]
    fn unsafe_is_bound_to_places() {
        let proven = "// SAFETY: fine.\nunsafe { x() }\n";
        for good in
            ["checkpoint/src/shard.rs", "kernels/src/experts/cpu.rs", "kernels/src/experts/cpu/avx2.rs"]
        {
            assert!(rules(&format!("crates/{good}"), proven).is_empty(), "{good}");
        }
        assert!(rules("crates/kernels/src/simd/avx2.rs", proven).is_empty());
        assert!(rules("crates/backend/src/cpu/pool.rs", proven).is_empty());
        assert_eq!(rules("crates/checkpoint/src/header.rs", proven), ["unsafe-place"]);
        assert_eq!(rules("crates/plan/src/lib.rs", proven), ["unsafe-place"]);
        assert!(rules("crates/engine/tests/allocations.rs", proven).is_empty());
    }

    #[test]
    fn a_block_needs_its_proof_near_by() {
        let name = "crates/kernels/src/simd/avx2.rs";
        assert_eq!(rules(name, "fn f() {\n    unsafe { x() }\n}\n"), ["unsafe-proof"]);
        assert!(
            rules(name, "    // SAFETY: a\n    // long reason\n    let y =\n        unsafe { x() };\n")
                .is_empty()
        );
        assert!(rules(name, "    // SAFETY: a\n    #[allow(x)]\n    unsafe { x() };\n").is_empty());
        assert_eq!(rules(name, "    // SAFETY: a\n    let z = 1;\n    unsafe { x() };\n"), ["unsafe-proof"]);
        assert!(rules(name, "// SAFETY: s\nunsafe impl Send for X {}\n").is_empty());
    }

    #[test]
    fn declarations_words_and_text_are_not_blocks() {
        let name = "crates/kernels/src/simd/avx2.rs";
        assert!(rules(name, "unsafe fn f() {}\n").is_empty());
        assert!(rules("src/a.rs", "// unsafe {\nlet s = \"unsafe {\"; let unsafe_count = 1;\n").is_empty());
        assert!(rules("src/a.rs", "#![deny(unsafe_op_in_unsafe_fn)]\n").is_empty());
    }

    #[test]
    fn the_inventory_counts_per_file() {
        let files = [sample("a.rs", "unsafe { x() }\nunsafe fn g() {}\n"), sample("b.rs", "fn f() {}\n")];
        assert_eq!(inventory(&files), "unsafe inventory: 2 uses\n     2  a.rs\n");
    }
}
