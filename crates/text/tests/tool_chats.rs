//! Chats with tools through condensed templates of five families, against what jinja2 prints for them.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{Chat, ChatTemplate, Message};
use common::*;
use serde_json::{Value, json};

fn file() -> Value {
    serde_json::from_slice(&std::fs::read(root().join("fixtures/dialects/chats.json")).unwrap()).unwrap()
}

fn message(value: &Value) -> Message {
    let mut extra = object(value.clone());
    let [role, content] = ["role", "content"].map(|key| extra.shift_remove(key).unwrap());
    Message { extra, ..Message::new(role.as_str().unwrap(), content.as_str().unwrap()) }
}

fn chat(file: &Value, index: usize) -> Chat {
    let messages = file["chats"][index].as_array().unwrap().iter().map(message).collect();
    let variables = object(json!({ "bos_token": "<s>", "eos_token": "</s>" }));
    Chat { messages, tools: Some(file["tools"].clone()), add_generation_prompt: true, variables, stop: None }
}

fn template(name: &str) -> ChatTemplate {
    let path = root().join("fixtures/dialects").join(name).with_extension("jinja");
    let mut template = ChatTemplate::from_source(name, &std::fs::read_to_string(path).unwrap()).unwrap();
    template.set_time(1_735_560_000);
    template
}

#[test]
fn chats_with_tools() {
    let file = file();
    for case in file["rendered"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let chat = chat(&file, case["chat"].as_u64().unwrap() as usize);
        assert_eq!(template(name).render(&chat).unwrap(), case["text"], "{name} {}", case["chat"]);
    }
}

/// Callers may have parsed the arguments already; templates that join text still get text.
#[test]
fn arguments_as_objects() {
    let file = file();
    for name in ["tags", "joined"] {
        let as_text = chat(&file, 2);
        let mut as_objects = as_text.clone();
        for message in &mut as_objects.messages {
            for call in
                message.extra.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten()
            {
                let arguments = &mut call["function"]["arguments"];
                *arguments = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
            }
        }
        let [text, objects] = [as_text, as_objects].map(|chat| template(name).render(&chat).unwrap());
        assert_eq!(text.replace(": ", ":"), objects.replace(": ", ":"), "{name}");
    }
}

#[test]
fn what_cannot_be_rendered_is_named() {
    let file = file();
    let mut chat = chat(&file, 2);
    chat.messages[2].extra["tool_calls"][0]["id"] = json!("short");
    let error = template("lists").render(&chat).unwrap_err().to_string();
    assert!(error.contains("nine characters, not short") && error.contains("line"), "{error}");
    chat.messages.remove(2);
    let error = template("types").render(&chat).unwrap_err().to_string();
    assert!(error.contains("nothing was called"), "{error}");
    let error = render("a\n{{ 1 % 'x' }}", json!({})).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains('%'), "{error}");
    let error = render("{% set ns = namespace(l=[]) %}{% set _ = ns.l.append(1) %}", json!({})).unwrap_err();
    assert!(error.to_string().contains("append"), "{error}");
}
