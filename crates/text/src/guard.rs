//! Keeps text that callers supply from becoming control tokens.
//!
//! Before rendering, [`Guard::shield`] puts a noncharacter ([`MARK`]) into every spelling of a special token
//! in the caller's strings, and at the ends of strings that could complete one with the template's text.
//! After rendering, [`Guard::encode`] gives the spellings that are still whole, which are the template's own,
//! a private name, drops the marks, and encodes with a tokenizer that knows the private names only.
//!
//! Strings without such text are left alone, and then the ids equal `encode(render(chat), false)`.
//! Added tokens that are not special (`<think>`, `<tool_call>`) stay tokens: templates look for them in
//! earlier answers, and they carry no authority. One-character special tokens cannot be split and stay too.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use tokenizers::AddedToken;

use crate::Error;
use crate::tokenizer::{Inner, run};

/// Splits spellings and encloses private names. Text that already holds it is refused.
pub(crate) const MARK: char = '\u{FDD0}';

pub(crate) struct Guard {
    spellings: Vec<String>,
    /// Every occurrence of a special spelling, overlapping ones too.
    every: AhoCorasick,
    /// Special spellings as the tokenizer takes them, leftmost and longest first.
    longest: AhoCorasick,
    /// Added tokens that are not special: a template may cut them out, so text may end next to them too.
    joints: AhoCorasick,
    heads: HashSet<String>,
    tails: HashSet<String>,
    inner: Inner,
}

impl Guard {
    pub fn new(
        added: &BTreeMap<u32, AddedToken>,
        view: impl FnOnce(Vec<(u32, AddedToken)>) -> Inner,
    ) -> Result<Guard, String> {
        let of = |special| {
            added.values().filter(move |token| token.special == special && !token.content.is_empty())
        };
        let spellings: Vec<String> = of(true).map(|token| token.content.clone()).collect();
        let joints: Vec<&String> = of(false).map(|token| &token.content).collect();
        let inside =
            |text: &String| -> Vec<usize> { text.char_indices().map(|(at, _)| at).skip(1).collect() };
        let ends = |cut: fn(&str, usize) -> &str| -> HashSet<String> {
            spellings
                .iter()
                .flat_map(|text| inside(text).into_iter().map(|at| cut(text, at).to_owned()))
                .collect()
        };
        let mut index = 0;
        let named = added.iter().filter(|(_, token)| !token.content.is_empty()).map(|(&id, token)| {
            let mut token = token.clone();
            if token.special {
                token.content = name(index);
                index += 1;
            }
            (id, token)
        });
        Ok(Guard {
            every: automaton(&spellings, MatchKind::Standard)?,
            longest: automaton(&spellings, MatchKind::LeftmostLongest)?,
            joints: automaton(&joints, MatchKind::LeftmostLongest)?,
            heads: ends(|text, at| &text[..at]),
            tails: ends(|text, at| &text[at..]),
            inner: view(named.collect()),
            spellings,
        })
    }

    /// The text with a mark wherever it could become part of a control token, unchanged if it cannot.
    pub fn shield<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Error> {
        if text.contains(MARK) {
            let mark = u32::from(MARK);
            return Err(Error::Chat(format!(
                "it holds U+{mark:X}, which is reserved (a noncharacter); remove it"
            )));
        }
        let mut marks = Vec::new();
        for found in self.every.find_overlapping_iter(text) {
            let first = text[found.range()].chars().next().map_or(0, char::len_utf8);
            marks.push(found.start() + first);
        }
        let mut start = 0;
        for joint in self.joints.find_iter(text) {
            self.mark_ends(text, start..joint.start(), &mut marks);
            start = joint.end();
        }
        self.mark_ends(text, start..text.len(), &mut marks);
        if marks.is_empty() {
            return Ok(Cow::Borrowed(text));
        }
        marks.sort_unstable();
        marks.dedup();
        let mut shielded = String::with_capacity(text.len() + marks.len() * MARK.len_utf8());
        let mut done = 0;
        for at in marks {
            shielded.push_str(&text[done..at]);
            shielded.push(MARK);
            done = at;
        }
        shielded.push_str(&text[done..]);
        Ok(Cow::Owned(shielded))
    }

    /// Marks the ends of one stretch if they could be the beginning or the end of a special spelling.
    fn mark_ends(&self, text: &str, stretch: std::ops::Range<usize>, marks: &mut Vec<usize>) {
        let part = &text[stretch.clone()];
        let (left, right) = (part.trim_start(), part.trim_end());
        let longest = self.spellings.iter().map(String::len).max().unwrap_or(0);
        let upto = |part: &str| 1..=longest.min(part.len());
        if upto(left).any(|n| left.get(..n).is_some_and(|end| self.tails.contains(end))) {
            marks.push(stretch.end - left.len());
        }
        if upto(right).any(|n| right.get(right.len() - n..).is_some_and(|end| self.heads.contains(end))) {
            marks.push(stretch.start + right.len());
        }
    }

    /// Encodes rendered text that holds marks.
    pub fn encode(&self, rendered: &str) -> Result<Vec<u32>, Error> {
        let mut text = String::with_capacity(rendered.len());
        let mut done = 0;
        for found in self.longest.find_iter(rendered) {
            text.extend(rendered[done..found.start()].chars().filter(|&char| char != MARK));
            text.push_str(&name(found.pattern().as_usize()));
            done = found.end();
        }
        text.extend(rendered[done..].chars().filter(|&char| char != MARK));
        run(&self.inner, &text, false)
    }

    /// Refuses roles other than the usual ones that occur inside a special token: `<|{{ role }}|>` in a
    /// template must not let a role named `endoftext` end the text.
    pub fn check_role(&self, role: &str) -> Result<(), Error> {
        const USUAL: [&str; 10] = [
            "system",
            "user",
            "assistant",
            "tool",
            "developer",
            "function",
            "observation",
            "ipython",
            "context",
            "model",
        ];
        if USUAL.contains(&role) || !self.spellings.iter().any(|spelling| spelling.contains(role)) {
            return Ok(());
        }
        let advice = "use system, user, assistant, tool or developer";
        Err(Error::Chat(format!("the role {role:?} could be taken for a control token; {advice}")))
    }
}

fn name(index: usize) -> String {
    format!("{MARK}{index}{MARK}")
}

fn automaton<P: AsRef<[u8]>>(patterns: &[P], kind: MatchKind) -> Result<AhoCorasick, String> {
    let mut builder = AhoCorasick::builder();
    // A full table would take megabytes for the thousands of added tokens that some vocabularies have.
    builder.kind(Some(AhoCorasickKind::ContiguousNFA)).match_kind(kind);
    builder.build(patterns).map_err(|error| format!("its added tokens cannot be searched for: {error}"))
}
