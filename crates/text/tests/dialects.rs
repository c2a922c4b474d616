//! Dialects: how each is recognised, and what its calls become.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{Chat, DIALECTS, Format, Piece, ToolCall, recognise};
use common::*;
use serde_json::{Value, json};

/// A piece as the file of outputs has it.
fn show(piece: &Piece) -> Value {
    match piece {
        Piece::Answer(text) => json!({ "answer": text }),
        Piece::Thought(text) => json!({ "thought": text }),
        Piece::Call(ToolCall { id: None, name, arguments, .. }) => {
            json!({ "call": name, "arguments": arguments })
        }
        Piece::Call(ToolCall { id, name, arguments, .. }) => {
            json!({ "call": name, "arguments": arguments, "id": id })
        }
    }
}

#[test]
fn outputs_of_every_family() {
    for (dialect, text, expected) in outputs() {
        let pieces = split(&format(dialect), [text.as_str()]);
        assert_eq!(Value::from_iter(pieces.iter().map(show)), expected, "{}: {text}", dialect.name);
        let calls = pieces.iter().filter_map(|piece| match piece {
            Piece::Call(call) => Some(call.index),
            _ => None,
        });
        assert!(calls.enumerate().all(|(at, index)| at == index), "{text}");
    }
}

#[test]
fn examples_call_f() {
    for dialect in DIALECTS {
        let expected = match dialect.name {
            "gemma4" | "function_gemma" => "{\"a\":1,\"b\":\"x\"}",
            _ => "{\"a\":1}",
        };
        let pieces = split(&format(dialect), [dialect.example]);
        let [Piece::Call(call)] = pieces.as_slice() else { panic!("{}: {pieces:?}", dialect.name) };
        assert_eq!((call.name.as_str(), call.arguments.as_str()), ("f", expected), "{}", dialect.name);
    }
}

/// An unfinished call is part of the answer, whole.
#[test]
fn nothing_is_lost() {
    for dialect in DIALECTS.iter().filter(|dialect| dialect.name != "harmony") {
        for (at, _) in dialect.example.char_indices() {
            let text = &dialect.example[..at];
            let pieces = split(&format(dialect), [text]);
            match pieces.as_slice() {
                [] => assert_eq!(text, ""),
                [Piece::Answer(shown)] => assert_eq!(shown, text, "{}", dialect.name),
                [Piece::Call(_)] => {}
                [Piece::Call(_), Piece::Answer(rest)] => assert!(text.ends_with(rest.as_str()), "{rest}"),
                other => panic!("{}: {text}: {other:?}", dialect.name),
            }
        }
    }
}

/// Lines as the families' templates have them.
#[test]
fn recognised_by_template() {
    for (template, expected) in [
        (
            "{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}",
            "harmony",
        ),
        ("{%- set toolcall_begin_token   = '<minimax:tool_call>'         -%}", "minimax_m2"),
        ("{{- '<|tool_call>call:' + function['name'] + '{' -}}…{{- '}<tool_call|>' -}}", "gemma4"),
        ("{{- '<start_function_call>call:' + function.name + '{' -}}", "function_gemma"),
        ("{{ '<longcat_tool_call>' + tool_call.name }}", "longcat"),
        (
            "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n\
             <arg_value>{arg-value-1}</arg_value>",
            "glm",
        ),
        (
            "{{ \"<seed:tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>\" }}",
            "seed",
        ),
        (
            "{{- '\\n<tool_call>\\n<function=' + tool_call.name + '>\\n' }}{{- '<parameter=' + args_name + \
             '>\\n' }}",
            "qwen3_coder",
        ),
        ("{%- set dsml_token = \"｜DSML｜\" -%}", "deepseek_dsml"),
        (
            "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>'}}",
            "deepseek",
        ),
        ("<|tool_calls_section_begin|>{%- for tool_call in message['tool_calls'] -%}", "kimi_k2"),
        ("{{- \"<|begin|>assistant<|tool_calls|>\" }}{{- \"<|tool_call:begin|>\" + tool_call.id }}", "solar"),
        ("{{- \"[TOOL_CALLS]\" + tool['function']['name'] + \"[ARGS]\" + arguments }}", "mistral_named"),
        ("{{- \"[TOOL_CALLS] [\" }}{%- set out = tool_call.function|tojson %}", "mistral"),
        ("\"List of tools: <|tool_list_start|>[\"", "lfm2"),
        ("{{- \"<|tool_call_start|>[\" + (calls | join(\", \")) + \"]<|tool_call_end|>\" -}}", "lfm2"),
        ("respond only with <|tool_call|> followed by a JSON list of tools used.", "granite"),
        ("{{- '<TOOLCALL>[{{\"name\": \"tool_name1\", \"arguments\": \"tool_args1\"}}, ' -}}", "nemotron"),
        ("Start by writing <|START_THINKING|>… 1. Action: write <|START_ACTION|> followed by", "command_r"),
        (
            "<tool_calls>[{\"name\": <function-name-1>, \"arguments\": <args-dict-1>}]</tool_calls>",
            "tool_calls",
        ),
        ("within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\\"name\\\": <function-name>", "hermes"),
        (
            "{{- \"Example Format: [func_name1(params_name1=params_value1), func_name2(params)] \\n\" -}}",
            "pythonic",
        ),
        (
            "'Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name \
             and its value}.'",
            "llama3_json",
        ),
    ] {
        let found = recognise(template, &|_| false).map(|dialect| dialect.name);
        assert_eq!(found, Some(expected), "{template}");
    }
    assert_eq!(recognise("{{ messages }}", &|_| false), None);
    let lfm = |token: &str| ["<|tool_call_start|>", "<|tool_call_end|>"].contains(&token);
    assert_eq!(recognise("List of tools: [", &lfm).map(|dialect| dialect.name), Some("lfm2"));
}

/// In gpt-oss every marker is a special token, which a detokeniser leaves out unless asked to keep it.
#[test]
fn special_markers_reach_the_splitter() {
    let tokenizer = tokenizer("o200k");
    let format = format(dialect("harmony"));
    let text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi";
    let ids = tokenizer.encode(text, false).unwrap();
    let mut stream = tokenizer.detokeniser().keeping(&format.markers());
    let mut parts: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    parts.push(stream.finish().unwrap());
    assert_eq!(parts.concat(), text);
    assert_eq!(
        split(&format, parts.iter().map(String::as_str)),
        [Piece::Thought("hm".into()), Piece::Answer("Hi".into())]
    );
    let end = tokenizer.token_id("<|return|>").unwrap();
    let other = tokenizer.token_id("<|startoftext|>").unwrap();
    assert_eq!(stream.push(end).unwrap() + &stream.push(other).unwrap(), "<|return|>");
}

#[test]
fn formats_of_chats() {
    let (tokenizer, template) = (tokenizer("qwen"), template("qwen"));
    let mut chat = Chat { add_generation_prompt: true, ..says("user", "Hi") };
    let of = |chat: &Chat, tail: &str| Format::of(&template, &tokenizer, chat, tail);
    assert_eq!(of(&chat, "").dialect, None);
    assert!(of(&chat, "assistant\n<think>\n").starts_inside);
    chat.tools = Some(json!([{ "type": "function", "function": { "name": "f" } }]));
    let format = of(&chat, "");
    assert!(format.reasoning.is_some() && !format.starts_inside && !format.tools.is_empty());
    chat.tools = Some(Value::from(vec![json!({}); 129]));
    assert!(template.render(&chat).unwrap_err().to_string().contains("128"));
}
