//! Rules for one Rust file: module docs, function length, nothing that panics by design outside tests.
use super::{Fault, RustFile};
use crate::scan::item_end;

/// Most lines that a function may have, signature and braces included.
const FUNCTION_LINES_MAX: usize = 70;

/// Words that may not appear outside tests, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    (".unwrap()", "return an error, or expect() with the invariant that makes it impossible"),
    ("todo!", "finish it or leave it out"),
    ("unimplemented!", "return an error that says what is not supported"),
];

/// Checks the file.
pub fn check(file: &RustFile) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !file.text.starts_with("//!") {
        let message = "starts without `//!`: say what the file owns";
        faults.push(Fault::new(&file.name, 1, "module-docs", message));
    }
    for (index, line) in file.source.code.iter().enumerate().filter(|(i, _)| !file.in_test(*i)) {
        for (word, advice) in BANNED.iter().filter(|(word, _)| line.contains(word)) {
            faults.push(Fault::new(&file.name, index + 1, "no-panic", format!("`{word}`: {advice}")));
        }
    }
    for (name, start, lines) in functions(&file.source.code) {
        if lines > FUNCTION_LINES_MAX {
            let message = format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: split it");
            faults.push(Fault::new(&file.name, start + 1, "function-length", message));
        }
    }
    faults
}

/// Every function: name, first line (from 0), number of lines.
fn functions(code: &[String]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (number, line) in code.iter().enumerate() {
        let Some(column) = keyword(line, "fn ") else { continue };
        let is_name = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '$' | '#');
        let name: String = line[column + 3..].trim_start().chars().take_while(is_name).collect();
        if !name.is_empty() {
            // What stands before `fn` on the line may close something: count from the keyword on.
            let mut rest = vec![line[column..].to_owned()];
            rest.extend_from_slice(&code[number + 1..]);
            found.push((name, number, item_end(&rest, 0) + 1));
        }
    }
    found
}

/// Where `word` stands in `line` as a word of its own.
fn keyword(line: &str, word: &str) -> Option<usize> {
    let free = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '#');
    line.match_indices(word).map(|(at, _)| at).find(|&at| free(at))
}

/// Paths (without `.rs`) of the modules that the file declares under `#[cfg(test)]` without a body.
pub fn test_modules(file: &RustFile) -> Vec<String> {
    let (folder, stem) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
    let stem = stem.trim_end_matches(".rs");
    let home = match stem {
        "lib" | "main" | "mod" => folder.to_owned(),
        _ => format!("{folder}/{stem}"),
    };
    let mut found = Vec::new();
    for (index, line) in file.source.code.iter().enumerate().filter(|(i, _)| file.in_test(*i)) {
        let Some(name) = line.trim().strip_suffix(';').and_then(|l| l.rsplit_once("mod ")) else { continue };
        found.push(format!("{home}/{}", name.1.trim()));
        let above = file.text.lines().nth(index.saturating_sub(1)).unwrap_or_default().trim();
        if let Some(path) = above.strip_prefix("#[path = \"").and_then(|p| p.strip_suffix("\"]")) {
            found.push(format!("{folder}/{path}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let text = "fn a(\n  x: [u8; 3],\n) -> u8 {\n  if x { 1 } else { 2 }\n}\ntrait T { fn b(&self); fn c() {} }\n";
        let code = sample("a.rs", text).source.code;
        let found: Vec<_> = functions(&code);
        assert_eq!(found, [("a".to_owned(), 0, 5), ("b".to_owned(), 5, 1)]);
    }

    #[test]
    fn a_function_pointer_is_not_a_function() {
        assert_eq!(functions(&["type F = fn (u8) -> u8;".to_owned()]), []);
        assert_eq!(functions(&["let my_fn = 3;".to_owned()]), []);
    }

    #[test]
    fn long_functions_are_faults_in_tests_too() {
        let text = format!("//!\nfn long() {{\n{}}}\n", "    x();\n".repeat(69));
        assert_eq!(check(&sample("tests/a.rs", &text)).len(), 1);
        let text = format!("//!\nfn fits() {{\n{}}}\n", "    x();\n".repeat(68));
        assert_eq!(check(&sample("tests/a.rs", &text)), []);
    }

    #[test]
    fn panicking_words_are_faults_outside_tests_only() {
        let body = "//! x\nfn f() { g().unwrap(); }\n#[cfg(test)]\nmod t { fn h() { g().unwrap(); } }\n";
        let faults = check(&sample("src/a.rs", body));
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].line, faults[0].rule), (2, "no-panic"));
        assert_eq!(check(&sample("tests/a.rs", body)), []);
        assert_eq!(check(&sample("src/a.rs", "//! x\n// .unwrap()\nconst S: &str = \"todo!\";\n")), []);
    }

    #[test]
    fn a_file_without_module_docs_is_a_fault() {
        assert_eq!(check(&sample("src/a.rs", "// x\n"))[0].rule, "module-docs");
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_found() {
        let text =
            "#[cfg(test)]\nmod cases;\nmod real;\n#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;\n";
        let declared = |name| test_modules(&sample(name, text));
        assert_eq!(declared("c/src/lib.rs"), ["c/src/cases", "c/src/tests", "c/src/x_tests.rs"]);
        assert_eq!(declared("c/src/x.rs"), ["c/src/x/cases", "c/src/x/tests", "c/src/x_tests.rs"]);
    }
}
