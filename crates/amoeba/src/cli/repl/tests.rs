//! Chats with a scripted keyboard and the bundled model.
use std::collections::VecDeque;

use amoeba::{Conversation, LoadOptions, Sampling, bundled_model, load_with};

use super::*;
use crate::cli::chat::SamplingArgs;

/// Types a script and keeps what is shown.
struct Script {
    inputs: VecDeque<Input>,
    prompts: Vec<String>,
    answers: String,
    notes: String,
    history: Vec<String>,
}

impl Script {
    fn new(inputs: &[Input]) -> Script {
        let inputs = inputs.iter().cloned().collect();
        Script {
            inputs,
            prompts: Vec::new(),
            answers: String::new(),
            notes: String::new(),
            history: Vec::new(),
        }
    }

    fn lines(lines: &[&str]) -> Script {
        Script::new(&lines.iter().map(|line| Input::Line((*line).to_owned())).collect::<Vec<_>>())
    }
}

impl Screen for Script {
    fn answer(&mut self, text: &str) -> Result<(), Failure> {
        self.answers += text;
        Ok(())
    }
    fn thought(&mut self, _text: &str) {}
    fn note(&mut self, text: &str) {
        self.notes += text;
        self.notes.push('\n');
    }
}

impl Terminal for Script {
    fn read(&mut self, prompt: &str) -> Result<Input, Failure> {
        self.prompts.push(prompt.to_owned());
        Ok(self.inputs.pop_front().unwrap_or(Input::End))
    }
    fn tell(&mut self, text: &str) {
        self.note(text);
    }
    fn remember(&mut self, text: &str) {
        self.history.push(text.to_owned());
    }
}

fn message(inputs: &[Input]) -> (Option<String>, Vec<String>) {
    let mut script = Script::new(inputs);
    (read_message(&mut script).unwrap(), script.prompts)
}

fn line(text: &str) -> Input {
    Input::Line(text.to_owned())
}

#[test]
fn messages_may_have_several_lines() {
    assert_eq!(message(&[line("one")]), (Some("one".into()), vec![PROMPT.into()]));
    assert_eq!(
        message(&[line("one\\"), line("two")]),
        (Some("one\ntwo".into()), vec![PROMPT.into(), MORE.into()])
    );
    let quoted = [line("\"\"\""), line("a"), line(""), line("  b\\"), line("\"\"\"")];
    assert_eq!(message(&quoted).0.as_deref(), Some("a\n\n  b\\"));
    assert_eq!(message(&[line("\"\"\"a"), line("b\"\"\" ")]).0.as_deref(), Some("a\nb"));
    assert_eq!(message(&[line("\"\"\"a\"\"\"")]).0.as_deref(), Some("a"));
}

#[test]
fn ctrl_c_drops_what_was_typed_and_leaves_the_second_time() {
    assert_eq!(message(&[Input::InterruptedEmpty]).0, None);
    assert_eq!(message(&[Input::End]).0, None);
    assert_eq!(message(&[Input::Interrupted, line("x")]).0.as_deref(), Some("x"));
    assert_eq!(message(&[Input::Interrupted, Input::Interrupted, line("x")]).0, None);
    assert_eq!(message(&[line("\"\"\""), Input::InterruptedEmpty, line("x")]).0.as_deref(), Some("x"));
    assert_eq!(message(&[line("a\\"), Input::InterruptedEmpty, Input::InterruptedEmpty]).0, None);
}

/// Runs a chat; greedy answers of at most eight tokens.
fn chat(script: &mut Script, context: Option<usize>) -> Conversation {
    let options = LoadOptions { context, threads: Some(1), ..LoadOptions::default() };
    let mut model = load_with(bundled_model().unwrap(), &options, &mut |_, _| {}).unwrap();
    let greedy = Sampling { temperature: 0.0, ..model.defaults() };
    let mut settings = Settings::new(greedy, &SamplingArgs::default(), false).unwrap();
    settings.set("n", "8").unwrap();
    let interrupt = Interrupt::deaf();
    let conversation = Conversation::default();
    let mut repl =
        Repl { model: &mut model, conversation, settings, interrupt: &interrupt, raw: false, last: None };
    repl.chat(script).unwrap();
    repl.conversation
}

#[test]
fn a_chat_keeps_its_turns_and_reuses_what_it_computed() {
    let mut script = Script::lines(&["Hello", "", "What is the capital of France?", "/stats"]);
    let conversation = chat(&mut script, None);
    let roles: Vec<&str> = conversation.turns().iter().map(|turn| turn.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert!(script.answers.ends_with('\n') && script.answers.len() > 10, "{:?}", script.answers);
    assert!(
        script.notes.contains("reused tokens") && script.notes.contains("4 messages"),
        "{}",
        script.notes
    );
    assert_eq!(script.history, ["Hello", "What is the capital of France?", "/stats"]);
}

#[test]
fn commands_act_and_mistakes_are_told() {
    let lines =
        ["/help", "Hello", "/clear", "/system Be brief.", "/set temp 9000", "/set top-k 3", "/set", "/nope"];
    let mut script = Script::lines(&lines);
    script.inputs.extend([line("/stats"), line("/bye"), line("Not read")]);
    let conversation = chat(&mut script, None);
    assert!(conversation.turns().is_empty());
    for part in [
        "/system [TEXT]",
        "starts anew",
        "system prompt is set",
        "temperature is 9000",
        "top-k is 3",
        "top-k 3\n",
    ] {
        assert!(script.notes.contains(part), "{part}: {}", script.notes);
    }
    assert!(
        script.notes.contains("no command /nope") && script.notes.contains("0 messages"),
        "{}",
        script.notes
    );
    assert_eq!(script.inputs, [line("Not read")]);
}

#[test]
fn a_full_context_is_explained_and_the_chat_goes_on() {
    let long = "word ".repeat(60);
    let mut script = Script::lines(&["Hello", &long, "/clear", "Hello"]);
    let conversation = chat(&mut script, Some(48));
    assert!(script.notes.contains("the whole conversation counts: /clear"), "{}", script.notes);
    assert_eq!(conversation.turns().len(), 2);
}
