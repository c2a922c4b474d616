//! The tools of a chat, and the types their schemas give to arguments that arrive as plain text.

use std::sync::Arc;

use serde_json::Value;

use super::loose::python_literal;
use crate::{Chat, Error, limits};

/// The tools that a prompt offers to a model: functions with JSON schemas, as the chat completions interface
/// has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools(Arc<Vec<Value>>);

impl Tools {
    /// The tools of a chat, as they are.
    pub fn of(chat: &Chat) -> Tools {
        Tools(Arc::new(chat.tools.as_ref().and_then(Value::as_array).cloned().unwrap_or_default()))
    }

    /// Checks a list `[{"type": "function", "function": {"name": …, "parameters": {…}}}, …]`.
    pub fn check(tools: &Value) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::Chat(reason));
        let Some(list) = tools.as_array() else { return wrong("its tools are not a list".into()) };
        if list.len() > limits::TOOLS {
            return wrong(format!("it has {} tools and at most {} are accepted", list.len(), limits::TOOLS));
        }
        for (index, tool) in list.iter().enumerate() {
            let function = &tool["function"];
            if tool.get("type").is_some_and(|kind| kind != "function") || !function.is_object() {
                let shape = r#"{"type": "function", "function": {"name": …, "parameters": …}}"#;
                return wrong(format!("tool {index} is not a function; write {shape}"));
            }
            if function["name"].as_str().is_none_or(|name| !is_name(name)) {
                return wrong(format!(
                    "tool {index} has no name; give its function a short word as \"name\""
                ));
            }
            if function.get("parameters").is_some_and(|parameters| !parameters.is_object()) {
                return wrong(format!("the parameters of tool {index} are not a JSON schema (an object)"));
            }
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, function: &str) -> Option<&Value> {
        let of = |tool: &'_ Value| tool.get("function").is_some_and(|it| it["name"] == function);
        let tool = self.0.iter().find(|tool| of(tool) || tool["name"] == function)?;
        Some(tool.get("function").unwrap_or(tool))
    }

    /// Whether there is a function of that name.
    pub(super) fn has(&self, function: &str) -> bool {
        self.get(function).is_some()
    }

    /// The schema of a function's parameters.
    pub(super) fn parameters(&self, function: &str) -> Option<&Value> {
        self.get(function)?.get("parameters")
    }
}

/// Whether this can be a function's name: short, without white space, quotes or brackets.
pub(super) fn is_name(name: &str) -> bool {
    let odd = |char: char| char.is_whitespace() || char.is_control() || "\"'`<>(){}[],;=|".contains(char);
    !name.is_empty() && name.len() <= limits::NAME_BYTES && !name.contains(odd)
}

/// An argument given as text: of another type than string only if the schema allows that type and the text is
/// a value of it. `parameters` is the whole schema of the function, `None` when it is unknown.
pub(super) fn typed(text: &str, parameters: Option<&Value>, name: &str) -> Value {
    let schema = parameters.map(|root| (root, &root["properties"][name]));
    let Some((root, schema)) = schema else { return text.into() };
    let plain = text.trim();
    // Some templates print lists and truth values as Python does, and models follow.
    match serde_json::from_str(plain).ok().or_else(|| python_literal(plain)) {
        Some(value) if !value.is_string() && allows(root, schema, &value, &mut { limits::SCHEMA_STEPS }) => {
            value
        }
        _ => text.into(),
    }
}

/// Whether a schema names the type of a value; one without any type allows strings alone.
fn allows(root: &Value, schema: &Value, value: &Value, steps: &mut usize) -> bool {
    let Some(left) = steps.checked_sub(1) else { return false };
    *steps = left;
    let of_type = |kind: &Value| match kind.as_str() {
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("null") => value.is_null(),
        _ => false,
    };
    let items = |key: &str| schema[key].as_array().into_iter().flatten();
    let target = schema["$ref"].as_str().and_then(|to| root.pointer(to.strip_prefix('#')?));
    let mut inner = items("anyOf").chain(items("oneOf")).chain(items("allOf")).chain(target);
    of_type(&schema["type"])
        || items("type").any(of_type)
        || items("enum").any(|one| one == value)
        || schema["const"] == *value && schema.get("const").is_some()
        || schema["nullable"] == true && value.is_null()
        || inner.any(|schema| allows(root, schema, value, steps))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_becomes_what_the_schema_allows() {
        let schema = json!({ "properties": {
            "s": { "type": "string" }, "i": { "type": "integer" }, "n": { "type": "number" },
            "b": { "type": ["boolean", "null"] }, "o": { "type": "object" }, "a": { "type": "array" },
            "any": { "anyOf": [{ "type": "integer" }, { "type": "string" }] }, "e": { "enum": [1, "x"] },
            "r": { "$ref": "#/$defs/point" }, "loop": { "$ref": "#/properties/loop" }, "free": {},
        }, "$defs": { "point": { "type": "object" } } });
        for (name, text, expected) in [
            ("s", "5", json!("5")),
            ("s", "null", json!("null")),
            ("i", " 5\n", json!(5)),
            ("i", "5.5", json!("5.5")),
            ("i", "five", json!("five")),
            ("n", "5.5", json!(5.5)),
            ("b", "true", json!(true)),
            ("b", "False", json!(false)),
            ("b", "null", json!(null)),
            ("b", "1", json!("1")),
            ("o", "{\"a\": [1]}", json!({ "a": [1] })),
            ("o", "{a: 1}", json!("{a: 1}")),
            ("a", "[1, \"x\"]", json!([1, "x"])),
            ("a", "['x', None]", json!(["x", null])),
            ("o", "{'k': True}", json!({ "k": true })),
            ("o", "{} {}", json!("{} {}")),
            ("any", "7", json!(7)),
            ("any", "seven", json!("seven")),
            ("e", "1", json!(1)),
            ("e", "2", json!("2")),
            ("r", "{}", json!({})),
            ("loop", "{}", json!("{}")),
            ("free", "5", json!("5")),
            ("unknown", "5", json!("5")),
        ] {
            assert_eq!(typed(text, Some(&schema), name), expected, "{name} {text:?}");
        }
        assert_eq!(typed("5", None, "i"), json!("5"));
    }

    #[test]
    fn wide_references_end_soon() {
        let list: Vec<Value> = vec![json!({ "$ref": "#/properties/x" }); 40];
        let schema = json!({ "properties": { "x": { "anyOf": list } } });
        assert_eq!(typed("5", Some(&schema), "x"), json!("5"));
    }

    #[test]
    fn lists_of_tools_are_checked() {
        let good = json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);
        Tools::check(&good).unwrap();
        for (bad, part) in [
            (json!({}), "not a list"),
            (json!(["f"]), "tool 0 is not a function"),
            (json!([{ "type": "web_search" }]), "tool 0 is not a function"),
            (json!([good[0], { "function": {} }]), "tool 1 has no name"),
            (json!([{ "function": { "name": "a b" } }]), "tool 0 has no name"),
            (json!([{ "function": { "name": "f", "parameters": 1 } }]), "parameters of tool 0"),
            (json!(vec![good[0].clone(); 129]), "129 tools"),
        ] {
            let error = Tools::check(&bad).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
