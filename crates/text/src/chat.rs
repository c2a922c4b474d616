//! A conversation as callers hand it over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use crate::{Error, ToolCall, limits};

/// One message of a chat.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Who speaks: a short plain word such as `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said.
    pub content: String,
    /// Further fields a template may read: `reasoning_content` and `tool_calls` of an assistant,
    /// `tool_call_id` and `name` of a tool. A `content` here replaces the text above, for templates that take
    /// null or a list of parts.
    pub extra: Map<String, Value>,
}

impl Message {
    /// An answer that called tools.
    pub fn calling(content: impl Into<String>, calls: &[ToolCall]) -> Message {
        let calls = calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id(), "type": "function", "function": function })
        });
        let extra = Map::from_iter([("tool_calls".to_owned(), calls.collect())]);
        Message { extra, ..Message::new("assistant", content) }
    }

    /// What a called tool answered.
    pub fn tool(call: &ToolCall, content: impl Into<String>) -> Message {
        let fields = [("tool_call_id", call.id()), ("name", call.name.clone())];
        let extra = fields.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        Message { extra, ..Message::new("tool", content) }
    }

    /// A message without further fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into(), extra: Map::new() }
    }
}

/// Everything a chat template sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chat {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Tool descriptions, as the chat completions interface has them: see [`crate::Tools::check`].
    pub tools: Option<Value>,
    /// End with the opening of an assistant message.
    pub add_generation_prompt: bool,
    /// Template switches such as `enable_thinking` or `reasoning_effort`.
    pub variables: Map<String, Value>,
    /// Ends the template when it is set.
    pub stop: Option<Stop>,
}

/// A flag that somebody else may set.
#[derive(Debug, Clone)]
pub struct Stop(pub Arc<AtomicBool>);

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Equal if they are the same flag.
impl PartialEq for Stop {
    fn eq(&self, other: &Stop) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Chat {
    /// Reads a list of messages, or an object with `messages` and maybe `tools`, `add_generation_prompt` and
    /// `chat_template_kwargs`, as the chat completions interface has them. Without a word on it, the prompt
    /// ends with the opening of an answer.
    pub fn from_json(value: &Value) -> Result<Chat, Error> {
        let wrong = |reason: &str| Error::Chat(format!("it is not a chat: {reason}"));
        let list = value.get("messages").unwrap_or(value);
        let list =
            list.as_array().ok_or_else(|| wrong("give a list of messages, or an object with `messages`"))?;
        let message = |value: &Value| {
            let fields =
                value.as_object().ok_or_else(|| wrong("a message is an object with role and content"))?;
            let role = fields.get("role").and_then(Value::as_str);
            let role = role.ok_or_else(|| wrong("a message has no role"))?;
            let content = fields.get("content").and_then(Value::as_str);
            let mut message = Message::new(role, content.unwrap_or_default());
            message.extra = fields.clone();
            message.extra.retain(|name, _| name != "role" && (name != "content" || content.is_none()));
            Ok(message)
        };
        let switch = value.get("add_generation_prompt").and_then(Value::as_bool);
        Ok(Chat {
            messages: list.iter().map(message).collect::<Result<_, Error>>()?,
            tools: value.get("tools").filter(|tools| !tools.is_null()).cloned(),
            add_generation_prompt: switch.unwrap_or(true),
            variables: value
                .get("chat_template_kwargs")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            stop: None,
        })
    }

    /// Refuses what no template should see.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.messages.len() > limits::MESSAGES {
            let (given, most) = (self.messages.len(), limits::MESSAGES);
            return Err(Error::Chat(format!("it has {given} messages and at most {most} are accepted")));
        }
        if self.tools.as_ref().and_then(Value::as_array).is_some_and(|tools| tools.len() > limits::TOOLS) {
            return Err(Error::Chat(format!("it has more than {} tools", limits::TOOLS)));
        }
        for (index, message) in self.messages.iter().enumerate() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            let role = &message.role;
            if role.is_empty() || role.len() > limits::ROLE_BYTES || !role.bytes().all(plain) {
                let advice = "use a plain word such as system, user, assistant or tool";
                return Err(Error::Chat(format!("the role of message {index} is not a word; {advice}")));
            }
        }
        Ok(())
    }

    /// Whether earlier answers called tools.
    pub(crate) fn has_calls(&self) -> bool {
        self.messages.iter().any(|message| message.extra.contains_key("tool_calls"))
    }

    /// What the template's variables hold; `text` is applied to every string that came from the caller, and
    /// the arguments of calls get the given form.
    pub(crate) fn context(
        &self,
        arguments: Arguments,
        text: &mut dyn FnMut(&str) -> String,
    ) -> Map<String, Value> {
        let mut context = rewrite_map(&self.variables, text);
        let messages = self.messages.iter().map(|message| {
            let mut fields = Map::new();
            fields.insert("role".into(), message.role.clone().into());
            fields.insert("content".into(), text(&message.content).into());
            let mut extra = message.extra.clone();
            extra.shift_remove("role");
            if let Some(calls) = extra.get_mut("tool_calls") {
                arguments.apply(calls);
            }
            fields.extend(rewrite_map(&extra, text));
            Value::Object(fields)
        });
        let messages = messages.collect();
        context.insert("messages".into(), Value::Array(messages));
        context.insert("tools".into(), self.tools.as_ref().map_or(Value::Null, |tools| rewrite(tools, text)));
        context.insert("add_generation_prompt".into(), self.add_generation_prompt.into());
        context.entry("documents").or_insert(Value::Null);
        context
    }
}

/// What a template is given for the arguments of a call. Callers have the JSON text that the model wrote;
/// templates expect objects as a rule, and some join text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arguments {
    Object,
    Text,
}

impl Arguments {
    fn apply(self, calls: &mut Value) {
        for call in calls.as_array_mut().into_iter().flatten() {
            let function = if call["function"].is_object() { &mut call["function"] } else { call };
            let Some(arguments) = function.get_mut("arguments") else { continue };
            match (self, &*arguments) {
                (Arguments::Object, Value::String(json)) => {
                    if let Ok(object @ Value::Object(_)) = serde_json::from_str(json) {
                        *arguments = object;
                    }
                }
                (Arguments::Text, Value::Object(_)) => *arguments = arguments.to_string().into(),
                _ => {}
            }
        }
    }
}

fn rewrite(value: &Value, text: &mut dyn FnMut(&str) -> String) -> Value {
    match value {
        Value::String(string) => text(string).into(),
        Value::Array(items) => items.iter().map(|item| rewrite(item, text)).collect(),
        Value::Object(map) => Value::Object(rewrite_map(map, text)),
        other => other.clone(),
    }
}

fn rewrite_map(map: &Map<String, Value>, text: &mut dyn FnMut(&str) -> String) -> Map<String, Value> {
    map.iter().map(|(key, value)| (text(key), rewrite(value, text))).collect()
}
