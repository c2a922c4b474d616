//! What each line of a Rust source is: code, a comment, part of a test. Reads what rustfmt writes: an item
//! ends at the first line that closes at the indentation it began with.

/// A line of a source.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// The text without indentation and without a trailing `// comment`.
    pub text: &'a str,
    /// Whether it lies in a `#[cfg(test)]` item or a `#[test]` function.
    pub test: bool,
}

impl Line<'_> {
    /// Whether it is neither blank nor a comment.
    pub fn is_code(&self) -> bool {
        !self.text.is_empty()
    }

    /// Whether it uses `unsafe`: a block, an implementation or a declaration. Attributes such as
    /// `#[unsafe(no_mangle)]` and words in texts do not count.
    pub fn is_unsafe(&self) -> bool {
        let begins = |rest: &str| {
            let rest = rest.trim_start();
            rest.is_empty()
                || ["{", "fn ", "impl", "extern", "trait"].iter().any(|next| rest.starts_with(next))
        };
        self.text.split('"').step_by(2).any(|code| {
            code.match_indices("unsafe").any(|(at, word)| {
                let apart = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                apart && begins(&code[at + word.len()..])
            })
        })
    }
}

/// The lines of `text`.
pub fn lines(text: &str) -> Vec<Line<'_>> {
    let mut all = Vec::new();
    // The indentation of the test item we are in, and whether its first line after the attributes was seen.
    let mut item: Option<(usize, bool)> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if item.is_none() && is_test_attribute(trimmed) {
            item = Some((indent, false));
        }
        all.push(Line { text: code(trimmed), test: item.is_some() });
        if let Some((start, begun)) = &mut item {
            let first =
                !*begun && indent == *start && !trimmed.starts_with('#') && !trimmed.starts_with("//");
            *begun |= first;
            let ends = indent == *start && trimmed.ends_with(['}', ';']);
            if *begun && ends {
                item = None;
            }
        }
    }
    all
}

fn is_test_attribute(line: &str) -> bool {
    line.starts_with("#[test]")
        || ["#[cfg(test)]", "#[cfg(all(test,", "#[cfg(any(test,"].iter().any(|start| line.starts_with(start))
}

/// What stands before a comment.
fn code(line: &str) -> &str {
    if line.starts_with("//") { "" } else { line.split(" // ").next().unwrap_or(line).trim_end() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_are_not_code() {
        let lines = lines("//! Docs.\n\nlet a = 1; // unsafe {\n    /// x\n");
        assert_eq!(lines.iter().map(Line::is_code).collect::<Vec<_>>(), [false, false, true, false]);
        assert_eq!(lines[2].text, "let a = 1;");
    }

    #[test]
    fn test_modules_and_functions_are_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\n\
            fn c() {}\n#[test]\n#[ignore]\n\
            fn d(\n) {\n}\nfn e() {}\n#[cfg(all(test, unix))]\nmod t;\n#[cfg(not(test))]\nmod u;\n";
        let marked: Vec<usize> =
            lines(text).iter().enumerate().filter(|(_, l)| l.test).map(|(i, _)| i).collect();
        assert_eq!(marked, [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14]);
    }

    #[test]
    fn unsafe_is_a_word_of_code() {
        let is = |text| lines(text)[0].is_unsafe();
        assert!(
            is("let x = unsafe { y() };") && is("    unsafe impl Send for X {}") && is("pub unsafe fn f();")
        );
        assert!(!is("// unsafe {") && !is("let s = \"unsafe {\";") && !is("#[unsafe(no_mangle)]"));
        assert!(!is("let unsafe_count = 1;") && !is("deny(unsafe_op_in_unsafe_fn)"));
    }
}
