//! Python's rules for words, lines and letters.

use minijinja::Error;
use minijinja::value::{Tuple, Value};
use unicode_categories::UnicodeCategories;

use super::refuse;

pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}

pub(crate) fn is_decimal(char: char) -> bool {
    char.is_number_decimal_digit()
}

pub(crate) fn is_digit(char: char) -> bool {
    is_decimal(char) || matches!(char, '²' | '³' | '¹' | '⁰'..='⁹' | '₀'..='₉' | '①'..='⑨')
}

/// `split` or `rsplit`, with at most `most` cuts; without a separator at white space.
pub(crate) fn split(
    text: &str,
    separator: Option<&str>,
    most: usize,
    right: bool,
) -> Result<Vec<String>, Error> {
    let Some(mark) = separator else { return Ok(split_space(text, most, right)) };
    if mark.is_empty() {
        return Err(refuse("split needs a separator that is not empty"));
    }
    let parts = most.saturating_add(1);
    if right {
        let mut parts: Vec<String> = text.rsplitn(parts, mark).map(str::to_owned).collect();
        parts.reverse();
        return Ok(parts);
    }
    Ok(text.splitn(parts, mark).map(str::to_owned).collect())
}

fn split_space(text: &str, most: usize, right: bool) -> Vec<String> {
    let mut parts = Vec::new();
    let trim = |text| {
        if right { str::trim_end_matches(text, is_space) } else { str::trim_start_matches(text, is_space) }
    };
    let mut rest = trim(text);
    while !rest.is_empty() {
        let cut = if right { rest.rfind(is_space) } else { rest.find(is_space) };
        let (part, after) = match cut.filter(|_| parts.len() < most) {
            Some(at) if right => {
                let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                (&rest[at + width..], &rest[..at])
            }
            Some(at) => rest.split_at(at),
            // What is not cut keeps its white space at the far end, unless all cuts were to be made.
            None => (rest, ""),
        };
        parts.push(part.to_owned());
        rest = trim(after);
    }
    if right {
        parts.reverse();
    }
    parts
}

/// `partition` or `rpartition`.
pub(crate) fn partition(text: &str, mark: &str, right: bool) -> Result<Value, Error> {
    if mark.is_empty() {
        return Err(refuse("partition needs a separator that is not empty"));
    }
    let cut = if right { text.rsplit_once(mark) } else { text.split_once(mark) };
    let parts = match cut {
        Some((before, after)) => [before, mark, after],
        None if right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// The lines of a text, by all that Python takes for line ends.
pub(crate) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let ends = |char| matches!(char, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let at = rest.find(ends).unwrap_or(rest.len());
        let width = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(0, char::len_utf8)
        };
        lines.push(&rest[..if keep_ends { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    lines
}

/// A capital after everything that is no letter.
pub(crate) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for char in text.chars() {
        if inside {
            out.extend(char.to_lowercase())
        } else {
            out.extend(char.to_uppercase())
        };
        inside = char.is_lowercase() || char.is_uppercase();
    }
    out
}

pub(crate) fn swapped(text: &str) -> String {
    let swap = |char: char| -> String {
        if char.is_uppercase() { char.to_lowercase().collect() } else { char.to_uppercase().collect() }
    };
    text.chars().map(swap).collect()
}

/// Breaks one line at `width` characters, as Python's `textwrap` does.
pub(crate) fn wrap(line: &str, width: usize, break_words: bool, break_hyphens: bool) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let mut chunks = pieces(&chars, break_hyphens);
    chunks.reverse();
    let blank = |chunk: &[char]| chunk.iter().all(|&char| is_space(char));
    let mut lines: Vec<String> = Vec::new();
    while !chunks.is_empty() {
        if !lines.is_empty() {
            chunks.pop_if(|chunk| blank(chunk));
        }
        let (mut current, mut length): (Vec<&[char]>, usize) = (Vec::new(), 0);
        while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= width) {
            length += chunk.len();
            current.push(chunk);
        }
        if let Some(chunk) = chunks.pop_if(|chunk| chunk.len() > width) {
            let room = (width - length).max(usize::from(current.is_empty()));
            if break_words {
                let (part, rest) = chunk.split_at(room);
                current.push(part);
                chunks.push(rest);
            } else if current.is_empty() {
                current.push(chunk);
            } else {
                chunks.push(chunk);
            }
        }
        current.pop_if(|chunk| blank(chunk));
        if !current.is_empty() {
            lines.push(current.concat().into_iter().collect());
        }
    }
    lines
}

/// Words, the white space between them, and parts of words after a hyphen between letters.
fn pieces(chars: &[char], break_hyphens: bool) -> Vec<&[char]> {
    let letter = |at: usize| chars.get(at).is_some_and(|char| char.is_alphabetic() || *char == '_');
    let (mut pieces, mut start) = (Vec::new(), 0);
    for at in 1..chars.len() {
        let hyphen = break_hyphens && at >= 3 && chars[at - 1] == '-';
        let after_hyphen = hyphen && [at - 3, at - 2, at, at + 1].into_iter().all(letter);
        if is_space(chars[at]) != is_space(chars[at - 1]) || after_hyphen {
            pieces.push(&chars[start..at]);
            start = at;
        }
    }
    pieces.push(&chars[start..]);
    pieces
}
