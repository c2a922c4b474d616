//! What templates in the field use, against what jinja2 prints for it.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{Chat, ChatTemplate, Message};
use common::*;
use serde_json::{Value, json};

#[test]
fn jinja2_behaviour() {
    let file = std::fs::read(root().join("crates/text/tests/data/jinja.json")).unwrap();
    let data: Value = serde_json::from_slice(&file).unwrap();
    let mut wrong = Vec::new();
    for (about, cases) in object(data["cases"].clone()) {
        for case in cases.as_array().unwrap() {
            let result = render(case[0].as_str().unwrap(), data["vars"].clone());
            if result.as_deref().ok() != case[1].as_str() {
                wrong.push(format!("{about}: {}\n  wanted {}\n  got {result:?}", case[0], case[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn clock() {
    let mut template = ChatTemplate::from_source("test", "{{ strftime_now('%d %B %Y') }}").unwrap();
    template.set_time(1_735_603_199);
    assert_eq!(template.render(&says("user", "")).unwrap(), "30 December 2024");
}

#[test]
fn extra_fields() {
    let source = "{% for m in messages %}{{ m.content is none }}{{ m.tool_calls[0].function.name }}\
        {{ m.role }}{% endfor %}";
    let mut message = Message::new("assistant", "x");
    message.extra =
        object(json!({"content": null, "role": "fake", "tool_calls": [{"function": {"name": "f"}}]}));
    let chat = Chat { messages: vec![message], ..Chat::default() };
    assert_eq!(ChatTemplate::from_source("test", source).unwrap().render(&chat).unwrap(), "Truefassistant");
}

#[test]
fn where_templates_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let config = |value| std::fs::write(dir.path().join("tokenizer_config.json"), value).unwrap();
    assert!(ChatTemplate::open(dir.path()).unwrap().is_none());
    config(json!({"chat_template": null}).to_string());
    assert!(ChatTemplate::open(dir.path()).unwrap().is_none());
    let mut chat = says("user", "Hi");
    let mut text = |tools| {
        chat.tools = tools;
        ChatTemplate::open(dir.path()).unwrap().unwrap().render(&chat).unwrap()
    };
    config(
        json!({"chat_template": "one {{ bos_token }}{{ eos_token }}", "bos_token": {"content": "<s>"}})
            .to_string(),
    );
    std::fs::write(dir.path().join("special_tokens_map.json"), r#"{"eos_token": "</s>"}"#).unwrap();
    assert_eq!(text(None), "one <s></s>");
    let (plain, tools) =
        (json!({"name": "default", "template": "plain"}), json!({"name": "tool_use", "template": "tools"}));
    config(json!({"chat_template": [tools, plain]}).to_string());
    assert_eq!((text(None), text(Some(json!([])))), ("plain".into(), "tools".into()));
    config(json!({"chat_template": {"default": "a", "tool_use": "b"}}).to_string());
    assert_eq!((text(None), text(Some(json!([])))), ("a".into(), "b".into()));
    let write = |name: &str, source: &str| std::fs::write(dir.path().join(name), source).unwrap();
    config("{}".into());
    write("chat_template.json", r#"{"chat_template": "beside"}"#);
    assert_eq!(text(None), "beside");
    std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/tool_use.jinja", "more");
    write("chat_template.jinja", "file");
    assert_eq!((text(None), text(Some(json!([])))), ("file".into(), "more".into()));
    write("chat_template.jinja", " \n");
    assert!(ChatTemplate::open(dir.path()).err().unwrap().to_string().contains("it is empty"));
    std::fs::write(dir.path().join("chat_template.jinja"), [0xFF, 0xFE]).unwrap();
    assert!(ChatTemplate::open(dir.path()).is_err());
    std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    for wrong in [json!({"chat_template": 3}), json!({"chat_template": []}), json!([])] {
        config(wrong.to_string());
        assert!(ChatTemplate::open(dir.path()).is_err(), "{wrong}");
    }
}

#[test]
fn reasoning_by_what_the_template_reads() {
    for (source, how, wanted) in [
        ("{% if enable_thinking is defined %}{% endif %}", "off", Ok(json!({"enable_thinking": false}))),
        (
            "{% set thinking = m.enable_thinking or thinking %}{{ reasoning_effort }}",
            "low",
            Ok(json!({"reasoning_effort": "low"})),
        ),
        ("{% if not thinking %}{% endif %}", "high", Err("on or off")),
        ("{{ reasoning_effort }}", "on", Err("low, medium or high")),
        ("{{ m.thinking }}", "on", Err("no variable")),
    ] {
        match (ChatTemplate::from_source("test", source).unwrap().reasoning(how), wanted) {
            (Ok(got), Ok(wanted)) => assert_eq!(Value::Object(got), wanted, "{source}"),
            (Err(got), Err(wanted)) => assert!(got.contains(wanted), "{source}: {got}"),
            other => panic!("{source}: {other:?}"),
        }
    }
}
