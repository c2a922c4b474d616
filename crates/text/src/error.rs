//! The one error type: what failed, where, and what to do about it.

use std::path::PathBuf;

/// Why text could not be tokenised, rendered or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model folder is not one that may be read, or is no JSON.
    #[error(transparent)]
    File(#[from] amoeba_checkpoint::Error),
    /// A file could not be read.
    #[error("cannot read {}: {source}; check that the model folder is complete and readable", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is larger than this program accepts.
    #[error("{} has {size} bytes and at most {limit} are accepted; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file does not hold what it should.
    #[error(
        "{} is not valid: {}; download it again or convert the model again", path.display(), shown(reason)
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place when known.
        reason: String,
    },
    /// A folder without a tokenizer.
    #[error("{} has no tokenizer: none of tokenizer.json, vocab.json with merges.txt, tiktoken.model, \
             hy.tiktoken and tokenizer.model is there; check that the folder is complete", dir.display())]
    NoTokenizer {
        /// The folder.
        dir: PathBuf,
    },
    /// The tokenizer refused a text.
    #[error("the tokenizer cannot encode this text: {0}; check tokenizer.json (its unknown token first)")]
    Encode(String),
    /// The tokenizer refused token ids.
    #[error("the tokenizer cannot decode these tokens: {0}; check the decoder in tokenizer.json")]
    Decode(String),
    /// A chat template did not compile, failed, or went over a limit.
    #[error("chat template {file}{}: {}{}", place(*line), shown(message), remedy(*raised))]
    Template {
        /// The file the template came from.
        file: String,
        /// The line in the template source, 0 when unknown.
        line: usize,
        /// What happened; the template's own words when `raised`.
        message: String,
        /// The template itself refused the chat with `raise_exception`.
        raised: bool,
    },
    /// The chat cannot be rendered safely.
    #[error("chat refused: {0}")]
    Chat(String),
    /// The system gave no thread for the template.
    #[error("the chat template could not be run: {0}; a limit on memory or address space is too low")]
    Thread(String),
    /// [`crate::Chat::stop`] was set.
    #[error("stopped while the chat template ran")]
    Stopped,
    /// A stop string that can never or always match.
    #[error("stop string {0} is empty; remove it or give it at least one character")]
    EmptyStop(usize),
}

fn place(line: usize) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

/// What helps where a template is at fault; a template that refuses says it itself.
fn remedy(raised: bool) -> &'static str {
    if raised { "" } else { "; take another with --chat-template FILE, or none with --raw" }
}

/// Text of a file made fit for a terminal: control characters escaped, and not without end.
pub(crate) fn shown(text: &str) -> String {
    amoeba_checkpoint::shown_to(text, 500)
}
