//! The one error type: what is wrong, where, what was expected, and what to do about it.

use std::io;
use std::path::Path;

/// Coarse class of an [`Error`], for exit codes and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A folder or file is not there.
    NotFound,
    /// The operating system refused a read.
    Io,
    /// The bytes contradict themselves, their index or the configuration.
    Corrupt,
    /// Well formed, but of a kind this engine does not read.
    Unsupported,
    /// A JSON file has a missing, mistyped or out-of-range value.
    Config,
}

/// Why a checkpoint could not be used. Text taken from files is escaped and shortened before it is shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder or file is not there.
    #[error("{at}: {what}")]
    NotFound {
        /// Path as the user gave it.
        at: String,
        /// What was looked for and what to do.
        what: String,
    },
    /// The operating system refused a read.
    #[error("{at}: cannot be read: {source}; check the permissions and the disk")]
    Io {
        /// Path as the user gave it.
        at: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The bytes contradict themselves, their index or the configuration.
    #[error("{at}: {what}; the files are damaged or do not belong together: download or convert them again")]
    Corrupt {
        /// File, and tensor where there is one.
        at: String,
        /// What was found and what was expected.
        what: String,
    },
    /// Well formed, but of a kind this engine does not read.
    #[error("{at}: {what}")]
    Unsupported {
        /// File, and tensor or key where there is one.
        at: String,
        /// What was found, what is supported and what to do.
        what: String,
    },
    /// A JSON file has a missing, mistyped or out-of-range value.
    #[error("{at}: {what}; correct the file or download it again")]
    Config {
        /// File and key path.
        at: String,
        /// What was found and what was expected.
        what: String,
    },
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::Io { .. } => ErrorKind::Io,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::Config { .. } => ErrorKind::Config,
        }
    }

    pub(crate) fn corrupt(at: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Corrupt { at: at.into(), what: what.into() }
    }

    pub(crate) fn unsupported(at: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Unsupported { at: at.into(), what: what.into() }
    }

    pub(crate) fn config(at: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Config { at: at.into(), what: what.into() }
    }

    /// `NotFound` or `Io`, by the system's own answer; `wanted` says what the file is for.
    pub(crate) fn reading(path: &Path, wanted: &str, source: io::Error) -> Error {
        let at = shown(&path.to_string_lossy());
        if source.kind() == io::ErrorKind::NotFound {
            return Error::NotFound { at, what: format!("does not exist; expected {wanted}") };
        }
        Error::Io { at, source }
    }
}

/// Text from a file made fit for a terminal: control characters escaped, at most 200 characters.
pub fn shown(text: &str) -> String {
    shown_to(text, 200)
}

/// As [`shown`], with at most `longest` characters.
pub fn shown_to(text: &str, longest: usize) -> String {
    let escaped = text.chars().flat_map(|c| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let printable = !c.is_control() && c != '\u{feff}' && !turns;
        let (plain, escape) = if printable { (Some(c), None) } else { (None, Some(c.escape_unicode())) };
        plain.into_iter().chain(escape.into_iter().flatten())
    });
    let mut out: String = escaped.take(longest + 1).collect();
    if out.chars().count() > longest {
        out.pop();
        out.push('…');
    }
    out
}
