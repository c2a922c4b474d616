//! The terminal that people see: line editing, history, completion of commands.
use std::cell::Cell;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use super::{Input, Terminal, command};
use crate::cli::chat::Screen;
use crate::cli::console::{self, Console};
use crate::cli::failure::{self, Failure};

const HISTORY_LINES: usize = 1000;

/// A line editor on standard input and output.
pub struct LineEditor<'a> {
    editor: Editor<Typing, FileHistory>,
    history: Option<PathBuf>,
    console: &'a Console,
}

impl<'a> LineEditor<'a> {
    /// Takes the terminal, and reads the history of earlier chats; without one it does too.
    pub fn open(console: &'a Console) -> Result<LineEditor<'a>, Failure> {
        let config =
            Config::builder().max_history_size(HISTORY_LINES).map(|b| b.auto_add_history(false).build());
        let editor = config.and_then(Editor::with_config);
        let mut editor = editor.map_err(|error| broken(&error))?;
        editor.set_helper(Some(Typing::default()));
        let history = history_file();
        if let Some(path) = &history {
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = editor.load_history(path);
        }
        Ok(LineEditor { editor, history, console })
    }
}

/// `amoeba/history` where programs keep what they may lose.
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    Some(state.or_else(|| set("LOCALAPPDATA"))?.join("amoeba").join("history"))
}

fn broken(error: &ReadlineError) -> Failure {
    Failure::new(failure::FAILED, format!("cannot read from the terminal: {error}"))
}

impl Screen for LineEditor<'_> {
    fn answer(&mut self, text: &str) -> Result<(), Failure> {
        console::print(text)
    }

    fn thought(&mut self, text: &str) {
        console::say(&self.console.grey(text));
    }

    fn note(&mut self, text: &str) {
        self.console.note(text);
    }
}

impl Terminal for LineEditor<'_> {
    fn read(&mut self, prompt: &str) -> Result<Input, Failure> {
        if let Some(typing) = self.editor.helper() {
            typing.empty.set(true);
        }
        match self.editor.readline(prompt) {
            Ok(line) => Ok(Input::Line(line)),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(ReadlineError::Interrupted)
                if self.editor.helper().is_some_and(|typing| typing.empty.get()) =>
            {
                Ok(Input::InterruptedEmpty)
            }
            Err(ReadlineError::Interrupted) => Ok(Input::Interrupted),
            Err(error) => Err(broken(&error)),
        }
    }

    fn tell(&mut self, text: &str) {
        console::say(&format!("{}\n", self.console.grey(text)));
    }

    fn remember(&mut self, text: &str) {
        let added = self.editor.add_history_entry(text).unwrap_or(false);
        if let (true, Some(path)) = (added, &self.history) {
            let _ = self.editor.append_history(path);
        }
    }
}

/// Completes commands, and knows whether something has been typed.
#[derive(Default)]
struct Typing {
    empty: Cell<bool>,
}

impl Hinter for Typing {
    type Hint = String;

    /// Gives no hints; it is where the editor shows its line.
    fn hint(&self, line: &str, _at: usize, _context: &Context<'_>) -> Option<String> {
        self.empty.set(line.is_empty());
        None
    }
}

impl Completer for Typing {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or(line);
        let fits = |name: &&&str| typed.starts_with('/') && name.starts_with(typed);
        Ok((0, command::NAMES.iter().filter(fits).map(|name| format!("{name} ")).collect()))
    }
}

impl Highlighter for Typing {}
impl Validator for Typing {}
impl Helper for Typing {}
