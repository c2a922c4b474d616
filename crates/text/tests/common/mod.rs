//! What the tests share: the fixture folders and chats read from JSON.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use amoeba_text::{
    Chat, ChatTemplate, DIALECTS, Dialect, Format, Message, Piece, Splitter, Tokenizer, Tools,
};
use serde_json::{Map, Value, json};

pub const FLAVOURS: [&str; 5] = ["gpt2", "llama3", "o200k", "qwen", "spm"];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn fixture(flavour: &str) -> PathBuf {
    root().join("fixtures/tokenizers").join(flavour)
}

pub fn tokenizer(flavour: &str) -> Tokenizer {
    Tokenizer::open(&fixture(flavour)).unwrap()
}

pub fn template(flavour: &str) -> ChatTemplate {
    ChatTemplate::open(&fixture(flavour)).unwrap().unwrap()
}

pub fn cases(flavour: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(flavour).join("cases.json")).unwrap()).unwrap()
}

/// The ids of the special tokens and their spellings.
pub fn specials(flavour: &str) -> Vec<(u32, String)> {
    let file = std::fs::read(fixture(flavour).join("tokenizer.json")).unwrap();
    let json: Value = serde_json::from_slice(&file).unwrap();
    let added = json["added_tokens"].as_array().unwrap().iter();
    added
        .filter(|token| token["special"] == true)
        .map(|token| (token["id"].as_u64().unwrap() as u32, token["content"].as_str().unwrap().to_owned()))
        .collect()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A chat of a `cases.json` entry.
pub fn chat(case: &Value) -> Chat {
    let messages = case["messages"].as_array().unwrap().iter();
    let mut variables = case["kwargs"].as_object().unwrap().clone();
    Chat {
        messages: messages
            .map(|message| {
                Message::new(message["role"].as_str().unwrap(), message["content"].as_str().unwrap())
            })
            .collect(),
        tools: variables.shift_remove("tools"),
        add_generation_prompt: variables.shift_remove("add_generation_prompt").unwrap().as_bool().unwrap(),
        variables,
        stop: None,
    }
}

pub fn says(role: &str, content: &str) -> Chat {
    Chat { messages: vec![Message::new(role, content)], ..Chat::default() }
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Renders a template with one user message and some variables.
pub fn render(source: &str, variables: Value) -> Result<String, amoeba_text::Error> {
    let mut chat = says("user", "Hi");
    chat.variables = object(variables);
    ChatTemplate::from_source("test", source)?.render(&chat)
}

pub fn dialect(name: &str) -> &'static Dialect {
    DIALECTS.iter().find(|dialect| dialect.name == name).unwrap()
}

/// A format with one tool, `f(a: integer, b: string, l: array, o: object)`.
pub fn format(dialect: &'static Dialect) -> Format {
    let parameters = json!({ "type": "object", "properties": {
        "a": { "type": "integer" }, "b": { "type": "string" }, "l": { "type": "array" },
        "o": { "type": "object" },
    } });
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": parameters } });
    let tools = Tools::of(&Chat { tools: Some(json!([tool])), ..Chat::default() });
    let (open, close) = dialect.thoughts.unwrap_or(("<think>", "</think>"));
    Format { dialect: Some(dialect), tools, ..Format::thoughts(open, close, false) }
}

/// The pieces of a text that arrives in parts, with neighbours of a kind joined.
pub fn split<'p>(format: &Format, parts: impl IntoIterator<Item = &'p str>) -> Vec<Piece> {
    let mut splitter = Splitter::new(format);
    let mut pieces: Vec<Piece> = parts.into_iter().flat_map(|part| splitter.push(part)).collect();
    pieces.extend(splitter.finish());
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Answer(before)), Piece::Answer(text)) => before.push_str(&text),
            (Some(Piece::Thought(before)), Piece::Thought(text)) => before.push_str(&text),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

/// What families write (dialect and text), and the pieces of it.
pub fn outputs() -> Vec<(&'static Dialect, String, Value)> {
    let file = std::fs::read(root().join("fixtures/dialects/outputs.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&file).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| (dialect(&text(row, "dialect")), text(row, "text"), row["pieces"].clone()))
        .collect()
}
