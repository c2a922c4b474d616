//! A small Rust scanner: splits a source into code and comments, line by line, and finds test regions.
//!
//! It is not a parser. It knows strings (plain, byte, raw), characters, lifetimes and nested comments, which is
//! enough to count braces and to look for words without being fooled by text.

/// A source file, masked: every vector has one entry per line.
pub struct Source {
    /// Code, with comments and the contents of strings and characters blanked.
    pub code: Vec<String>,
    /// Comment text alone.
    pub comment: Vec<String>,
    /// Whether the line lies in a `#[cfg(test)]` item or a `#[test]` function.
    pub test: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

impl Source {
    /// Scans `text`.
    pub fn new(text: &str) -> Self {
        let (code, comment) = mask(text);
        let test = test_lines(&code);
        Source { code, comment, test }
    }

    /// Whether the line holds code (not only blanks and comments).
    pub fn is_code(&self, line: usize) -> bool {
        !self.code[line].trim().is_empty()
    }
}

fn mask(text: &str) -> (Vec<String>, Vec<String>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comment) = (String::new(), String::new());
    let (mut state, mut i) = (State::Code, 0);
    while i < chars.len() {
        let (next, used, is_code) = step(&chars, i, state);
        for &c in &chars[i..i + used] {
            let visible = state == State::Code && is_code;
            let noted = matches!(state, State::LineComment | State::BlockComment(_));
            code.push(if c == '\n' || visible { c } else { filler(state, c) });
            comment.push(if c == '\n' || noted { c } else { ' ' });
        }
        (state, i) = (next, i + used);
    }
    (code.lines().map(str::to_owned).collect(), comment.lines().map(str::to_owned).collect())
}

/// Strings leave a quote mark behind so that a line holding only text still counts as code.
fn filler(state: State, c: char) -> char {
    match state {
        State::Text | State::RawText(_) if !c.is_whitespace() => '"',
        _ => ' ',
    }
}

/// The state after the next token, how many characters it takes, and whether they are code to be seen.
fn step(chars: &[char], i: usize, state: State) -> (State, usize, bool) {
    let at = |k: usize| chars.get(i + k).copied().unwrap_or('\0');
    match state {
        State::Code => step_code(chars, i),
        State::LineComment if at(0) == '\n' => (State::Code, 1, false),
        State::LineComment => (State::LineComment, 1, false),
        State::BlockComment(depth) => match (at(0), at(1)) {
            ('*', '/') if depth == 1 => (State::Code, 2, false),
            ('*', '/') => (State::BlockComment(depth - 1), 2, false),
            ('/', '*') => (State::BlockComment(depth + 1), 2, false),
            _ => (state, 1, false),
        },
        State::Text => match at(0) {
            '\\' => (state, 2.min(chars.len() - i), false),
            '"' => (State::Code, 1, false),
            _ => (state, 1, false),
        },
        State::RawText(hashes) => {
            let closed = at(0) == '"' && (1..=hashes).all(|k| at(k) == '#');
            if closed { (State::Code, 1 + hashes, false) } else { (state, 1, false) }
        }
    }
}

fn step_code(chars: &[char], i: usize) -> (State, usize, bool) {
    let at = |k: usize| chars.get(i + k).copied().unwrap_or('\0');
    let after_word = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    match at(0) {
        '/' if at(1) == '/' => (State::LineComment, 1, false),
        '/' if at(1) == '*' => (State::BlockComment(1), 2, false),
        '"' => (State::Text, 1, true),
        'r' | 'b' | 'c' if !after_word => {
            let prefix = if at(1) == 'r' { 2 } else { 1 };
            let hashes = (prefix..).take_while(|&k| at(k) == '#').count();
            if (at(0) == 'r' || prefix == 2) && at(prefix + hashes) == '"' {
                return (State::RawText(hashes), prefix + hashes + 1, true);
            }
            (State::Code, 1, true)
        }
        '\'' if at(1) == '\\' => {
            let close = (3..14).find(|&k| at(k) == '\'').unwrap_or(2);
            (State::Code, (close + 1).min(chars.len() - i), false)
        }
        '\'' if at(2) == '\'' => (State::Code, 3, false),
        _ => (State::Code, 1, true),
    }
}

fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    for (start, line) in code.iter().enumerate() {
        let line = line.trim_start();
        let starts = line.starts_with("#[test]") || (line.starts_with("#[cfg(") && names_test(line));
        if starts && !test[start] {
            let end = item_end(code, start);
            test[start..=end].fill(true);
        }
    }
    test
}

fn names_test(attribute: &str) -> bool {
    let words: Vec<&str> = attribute.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    words.contains(&"test") && !words.contains(&"not")
}

/// The last line of the item whose first line (attributes included) is `start`.
pub fn item_end(code: &[String], start: usize) -> usize {
    let (mut braces, mut others) = (0usize, 0usize);
    for (number, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '(' | '[' => others += 1,
                ')' | ']' => others = others.saturating_sub(1),
                '{' => braces += 1,
                '}' if braces <= 1 && others == 0 => return number,
                '}' => braces = braces.saturating_sub(1),
                ';' if braces == 0 && others == 0 => return number,
                _ => {}
            }
        }
    }
    code.len().saturating_sub(1)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
