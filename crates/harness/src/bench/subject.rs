//! What a row is about: the test, the program, the machine.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Tokens of a prompt, in chunks, with `depth` positions cached.
    #[default]
    Prefill,
    /// One token of every sequence per step, with `depth` positions cached (one, where `depth` is 0).
    Decode,
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// What is timed.
    pub kind: Kind,
    /// Tokens per sequence.
    pub tokens: usize,
    /// Positions cached before.
    pub depth: usize,
    /// Sequences at a time; 1 for prefill.
    pub batch: usize,
}

impl Test {
    /// Tokens per repetition, all sequences together.
    pub fn all_tokens(self) -> usize {
        self.tokens * self.batch
    }

    /// Positions cached before the clock starts.
    pub fn cached(self) -> usize {
        match self.kind {
            Kind::Prefill => self.depth,
            Kind::Decode => self.depth.max(1),
        }
    }
}

/// `pp512`, `tg128`, `tg128x4@1000`: tokens, sequences, depth.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::Prefill { "pp" } else { "tg" };
        write!(f, "{kind}{}", self.tokens)?;
        if self.batch > 1 {
            write!(f, "x{}", self.batch)?;
        }
        if self.depth > 0 { write!(f, "@{}", self.depth) } else { Ok(()) }
    }
}

/// What the program was built from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// Version of the program.
    pub version: String,
    /// Commit; empty where it was built without git.
    pub commit: String,
    /// Whether sources differed from the commit.
    pub dirty: bool,
    /// Compiler.
    pub rustc: String,
}

/// The machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Model of the processor.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Widest instruction set.
    pub isa: String,
    /// Operating system and architecture.
    pub os: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_short_names() {
        let test = |kind, tokens, depth, batch| Test { kind, tokens, depth, batch }.to_string();
        assert_eq!(test(Kind::Prefill, 512, 0, 1), "pp512");
        assert_eq!(test(Kind::Decode, 128, 0, 1), "tg128");
        assert_eq!(test(Kind::Decode, 128, 1000, 4), "tg128x4@1000");
    }
}
