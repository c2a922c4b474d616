//! Runs the program as people do: the bundled model, pipes, wrong flags, damaged folders.
#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as a test may")]
mod bench;
mod cuda;
mod eval;
mod facts;
mod gate;
mod pull;
mod run;
mod trace;
mod usage;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program, with an environment of its own: an empty model cache, no terminal, nothing to type.
fn amoeba(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amoeba"));
    command.args(args).stdin(Stdio::null());
    for name in ["HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "AMOEBA_MODELS"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", "/no/such/folder");
    command
}

/// What the program did.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn new(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails unless it ended with that code and said all of this on standard error.
    #[track_caller]
    fn expect(self, code: i32, said: &[&str]) -> Ran {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        for part in said {
            assert!(self.err.contains(part), "`{part}` is not in: {}", self.err);
        }
        self
    }
}

fn ran(args: &[&str]) -> Ran {
    Ran::new(amoeba(args).output().unwrap())
}

fn ran_with_input(args: &[&str], input: &str) -> Ran {
    let mut command = amoeba(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Ran::new(child.wait_with_output().unwrap())
}

/// A folder of the repository.
fn repository(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(path).canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// A copy of a fixture that a test may damage.
fn copy(fixture: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(repository(fixture)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}
