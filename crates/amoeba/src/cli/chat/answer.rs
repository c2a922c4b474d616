//! Shows an answer as it comes, then the grey line of statistics.
use std::ops::ControlFlow;

use amoeba::{Finish, Model, Piece, Reply, Sampling, ToolCall};

use crate::cli::console::{bytes, rate, time};
use crate::cli::failure::Failure;
use crate::cli::system;

/// Where text is shown.
pub trait Screen {
    /// A part of the answer.
    fn answer(&mut self, text: &str) -> Result<(), Failure>;
    /// A part of a thought.
    fn thought(&mut self, text: &str);
    /// A line about the program itself.
    fn note(&mut self, text: &str);
}

/// Shows the pieces of one answer.
pub struct Printer<'a> {
    screen: &'a mut dyn Screen,
    show_reasoning: bool,
    thought: bool,
    answered: bool,
    /// The last character shown, of answer or thought.
    last: Option<char>,
    failure: Option<Failure>,
}

impl<'a> Printer<'a> {
    /// For one answer.
    pub fn new(screen: &'a mut dyn Screen, show_reasoning: bool) -> Printer<'a> {
        Printer { screen, show_reasoning, thought: false, answered: false, last: None, failure: None }
    }

    /// Shows a piece; breaks when nobody reads any more.
    pub fn take(&mut self, piece: &Piece) -> ControlFlow<()> {
        let shown = match piece {
            Piece::Thought(text) => {
                self.thought = true;
                if self.show_reasoning {
                    self.screen.thought(text);
                    self.last = text.chars().last().or(self.last);
                }
                Ok(())
            }
            Piece::Answer(text) => self.answer(text),
            Piece::Call(call) => self.call(call),
        };
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    /// A call has a line of its own.
    fn call(&mut self, call: &ToolCall) -> Result<(), Failure> {
        let start = if self.answered && self.last.is_some_and(|last| last != '\n') { "\n" } else { "" };
        self.answer(&format!("{start}tool call {} {}\n", call.name, call.arguments))
    }

    /// Between a thought and its answer models leave blank lines: one line break is enough.
    fn answer(&mut self, text: &str) -> Result<(), Failure> {
        let text = if self.thought && !self.answered { text.trim_start() } else { text };
        if text.is_empty() {
            return Ok(());
        }
        if !self.answered && self.last.is_some_and(|last| last != '\n') {
            self.screen.thought("\n");
        }
        self.answered = true;
        self.last = text.chars().last();
        self.screen.answer(text)
    }

    /// Ends the last line, and tells whether something could not be shown.
    pub fn finish(self) -> Result<(), Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None if self.last.is_none_or(|last| last == '\n') => Ok(()),
            None if self.answered => self.screen.answer("\n"),
            None => {
                self.screen.thought("\n");
                Ok(())
            }
        }
    }
}

/// The grey line: speed, time to first token, memory, path, and how it ended when not by itself.
pub fn summary(model: &Model, reply: &Reply, sampling: &Sampling) -> String {
    let stats = &reply.stats;
    let fresh = stats.prompt_tokens - stats.reused_tokens.min(stats.prompt_tokens);
    let reused =
        if stats.reused_tokens > 0 { format!(" + {} reused", stats.reused_tokens) } else { String::new() };
    let mut parts = vec![
        format!("prompt {fresh}{reused} tokens, {} tok/s", rate(fresh, stats.prefill)),
        format!(
            "decode {} tokens, {} tok/s",
            stats.generated_tokens,
            rate(stats.generated_tokens.saturating_sub(1), stats.decode)
        ),
        format!("first token {}", time(stats.first_token)),
        memory(model),
        format!("{}, {}", word(&stats.decode_path), model.describe()),
    ];
    if stats.sampling != "host" {
        parts.push(format!("sampling on the {}", stats.sampling));
    }
    if sampling.temperature > 0.0 {
        parts.push(format!("seed {}", sampling.seed));
    }
    let ended = match reply.finish {
        Some(Finish::Length) => "stopped at -n".to_owned(),
        Some(Finish::ContextFull) => {
            let (context, longest) = (model.limits().context, model.plan().spec.context_max);
            let more = if context < longest { "-c takes more" } else { "all this model takes" };
            format!("the context of {context} positions is full ({more})")
        }
        Some(Finish::Cancelled) => "interrupted".to_owned(),
        Some(Finish::Eos | Finish::Stop) | None => String::new(),
    };
    if !ended.is_empty() {
        parts.push(ended);
    }
    format!("[{}]", parts.join(" · "))
}

/// Bytes the model holds, and the most that the process has held.
fn memory(model: &Model) -> String {
    let peak = system::peak_memory().map_or(String::new(), |peak| format!(" (process peak {})", bytes(peak)));
    format!("memory {}{peak}", bytes(model.memory() as u64))
}

/// `fused (1 of at most 8 rows)` without the reason.
fn word(path: &str) -> &str {
    path.split(' ').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Page(String);

    impl Screen for Page {
        fn answer(&mut self, text: &str) -> Result<(), Failure> {
            self.0 += text;
            Ok(())
        }
        fn thought(&mut self, text: &str) {
            self.0 += &text.to_uppercase();
        }
        fn note(&mut self, _text: &str) {}
    }

    fn show(pieces: &[Piece], show_reasoning: bool) -> String {
        let mut page = Page::default();
        let mut printer = Printer::new(&mut page, show_reasoning);
        assert!(pieces.iter().all(|piece| printer.take(piece).is_continue()));
        printer.finish().unwrap();
        page.0
    }

    #[test]
    fn thoughts_are_hidden_or_stand_apart() {
        let pieces =
            [Piece::Thought("hm".into()), Piece::Answer("\n\n".into()), Piece::Answer("yes\n\nno".into())];
        assert_eq!(show(&pieces, false), "yes\n\nno\n");
        assert_eq!(show(&pieces, true), "HM\nyes\n\nno\n");
        assert_eq!(show(&pieces[..1], true), "HM\n");
        assert_eq!(show(&pieces[1..2], false), "\n\n");
        assert_eq!(show(&[], false), "");
    }

    #[test]
    fn calls_have_lines_of_their_own() {
        let call = |index| {
            Piece::Call(ToolCall { index, name: "f".into(), arguments: "{}".into(), ..ToolCall::default() })
        };
        let pieces = [Piece::Thought("hm".into()), Piece::Answer("\n\nI look.".into()), call(0), call(1)];
        assert_eq!(show(&pieces, false), "I look.\ntool call f {}\ntool call f {}\n");
        assert_eq!(show(&[pieces[0].clone(), call(0)], true), "HM\ntool call f {}\n");
    }
}
