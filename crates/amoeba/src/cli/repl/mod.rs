//! The chat at the terminal. What it does is here, without a terminal; `line.rs` has the one that people see.
mod command;
mod line;
#[cfg(test)]
mod tests;

use amoeba::{Conversation, Finish, Model, Reply, stream};

use super::chat::{Printer, Screen, Settings, summary};
use super::console::Console;
use super::failure::Failure;
use super::interrupt::Interrupt;
use command::{Command, HELP};

/// What came from the keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A line, without its end.
    Line(String),
    /// Ctrl-C while something was typed.
    Interrupted,
    /// Ctrl-C on an empty line.
    InterruptedEmpty,
    /// Ctrl-D.
    End,
}

/// A screen with a keyboard.
pub trait Terminal: Screen {
    /// Asks for a line.
    fn read(&mut self, prompt: &str) -> Result<Input, Failure>;
    /// Shows what was asked for with a command, or what needs an answer; even when quiet.
    fn tell(&mut self, text: &str);
    /// Keeps a message for the next time somebody presses the up key.
    fn remember(&mut self, text: &str);
}

const PROMPT: &str = ">>> ";
const MORE: &str = "... ";

/// Chats at the real terminal.
pub fn run(
    model: &mut Model,
    conversation: Conversation,
    settings: Settings,
    interrupt: &Interrupt,
    raw: bool,
    console: &Console,
) -> Result<(), Failure> {
    let mut terminal = line::LineEditor::open(console)?;
    terminal.note(&format!("[{}, {} positions; /help for help]", model.describe(), model.limits().context));
    Repl { model, conversation, settings, interrupt, raw, last: None }.chat(&mut terminal)
}

/// A chat under way.
struct Repl<'a> {
    model: &'a mut Model,
    conversation: Conversation,
    settings: Settings,
    interrupt: &'a Interrupt,
    /// Without chat template each message stands by itself.
    raw: bool,
    last: Option<String>,
}

impl Repl<'_> {
    /// Reads and answers until somebody leaves.
    fn chat(&mut self, terminal: &mut dyn Terminal) -> Result<(), Failure> {
        while let Some(text) = read_message(terminal)? {
            if text.trim().is_empty() {
                continue;
            }
            terminal.remember(&text);
            match Command::parse(&text) {
                None => self.answer(&text, terminal)?,
                Some(Ok(Command::Bye)) => break,
                Some(Ok(command)) => self.obey(command, terminal)?,
                Some(Err(advice)) => terminal.tell(&advice),
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command, terminal: &mut dyn Terminal) -> Result<(), Failure> {
        match command {
            Command::Help => terminal.tell(HELP),
            Command::Clear => {
                self.conversation.clear();
                terminal.tell("the conversation starts anew");
            }
            Command::System(text) => {
                let gone = text.is_empty();
                self.conversation.set_system(Some(text).filter(|text| !text.is_empty()));
                terminal.tell(if gone { "no system prompt" } else { "the system prompt is set" });
            }
            Command::List => terminal.tell(&self.settings.list()),
            Command::Set(name, value) => {
                let before = self.settings.clone();
                let applied = self.settings.set(&name, &value).and_then(|()| {
                    let applied = self.settings.reasoning.apply(self.model, &mut self.conversation);
                    applied.map_err(|failure| failure.message)
                });
                match applied {
                    Ok(()) => terminal.tell(&format!("{name} is {value}")),
                    Err(advice) => {
                        self.settings = before;
                        terminal.tell(&advice);
                    }
                }
            }
            Command::Stats => {
                let (turns, context) = (self.conversation.turns().len(), self.model.limits().context);
                terminal.tell(&format!(
                    "{turns} messages, context of {context} positions, {}",
                    self.model.describe()
                ));
                terminal.tell(self.last.as_deref().unwrap_or("no answer yet"));
            }
            Command::Bye => {}
        }
        Ok(())
    }

    /// One turn. An error in a message is printed, and the chat continues.
    fn answer(&mut self, text: &str, terminal: &mut dyn Terminal) -> Result<(), Failure> {
        let request = self.settings.request(self.interrupt.arm());
        let mut printer = Printer::new(terminal, self.settings.show_reasoning);
        let reply = if self.raw {
            let prompt = self.model.raw_prompt(text).map_err(amoeba::Error::from);
            prompt.and_then(|prompt| stream(self.model, &prompt, &request, &mut |piece| printer.take(piece)))
        } else {
            self.conversation.ask(self.model, text, &request, &mut |piece| printer.take(piece))
        };
        self.interrupt.disarm();
        printer.finish()?;
        match reply {
            Ok(reply) => {
                let line = summary(self.model, &reply, &request.sampling);
                terminal.note(&line);
                self.last = Some(line);
                self.explain(&reply, terminal);
                Ok(())
            }
            Err(error) => {
                let failure = Failure::from(error);
                if failure.code == super::failure::INTERRUPTED {
                    terminal.note("[interrupted]");
                    Ok(())
                } else if matches!(failure.code, super::failure::USAGE | super::failure::CORRUPT) {
                    terminal.tell(&format!("{}{}", failure.message, self.advice(&failure.message)));
                    Ok(())
                } else {
                    Err(failure)
                }
            }
        }
    }

    fn explain(&self, reply: &Reply, terminal: &mut dyn Terminal) {
        if reply.finish == Some(Finish::ContextFull) {
            terminal.tell("the context is full: /clear starts anew");
        }
    }

    /// In a long chat it is the conversation that no longer fits, not the message.
    fn advice(&self, message: &str) -> &'static str {
        if message.contains("context") && !self.conversation.turns().is_empty() {
            "\n(the whole conversation counts: /clear starts anew)"
        } else {
            ""
        }
    }
}

/// A whole message: a line, lines that end in `\`, or everything between `"""` and `"""`. `None` to leave.
fn read_message(terminal: &mut dyn Terminal) -> Result<Option<String>, Failure> {
    let mut message = String::new();
    let mut quoted = false;
    let mut warned = false;
    loop {
        let line = match terminal.read(if quoted || !message.is_empty() { MORE } else { PROMPT })? {
            Input::Line(line) => line,
            Input::InterruptedEmpty if message.is_empty() && !quoted => return Ok(None),
            Input::Interrupted if warned => return Ok(None),
            Input::Interrupted | Input::InterruptedEmpty => {
                (message, quoted, warned) = (String::new(), false, true);
                terminal.tell("(Ctrl-C again, Ctrl-D or /bye to leave)");
                continue;
            }
            Input::End => return Ok(None),
        };
        let mut line = line.as_str();
        if message.is_empty()
            && !quoted
            && let Some(rest) = line.trim_start().strip_prefix("\"\"\"")
        {
            (quoted, line) = (true, rest);
        }
        if quoted {
            match line.trim_end().strip_suffix("\"\"\"") {
                Some(rest) => return Ok(Some((message + rest).trim_matches('\n').to_owned())),
                None => message = message + line + "\n",
            }
        } else if let Some(rest) = line.strip_suffix('\\') {
            message = message + rest + "\n";
        } else {
            return Ok(Some(message + line));
        }
    }
}
