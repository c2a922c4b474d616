//! Values that can be called: methods that were looked up, and macros that take any arguments.

use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, State};

use super::print::is_named;

/// Methods that templates look for without calling them. In Python `map.items` is the method even if there is
/// such a key, and `map['items']` if there is none.
pub(crate) const METHODS: [&str; 9] =
    ["items", "keys", "values", "get", "copy", "split", "strip", "startswith", "replace"];

pub(crate) fn method(value: &Value, name: &str) -> Option<Value> {
    let at = METHODS.iter().position(|method| *method == name)?;
    let (of_map, of_text) = (at < 5, at > 4);
    let has = match value.kind() {
        ValueKind::Map => of_map && !is_named(value, "Namespace") && !is_named(value, "<macro "),
        ValueKind::String => of_text,
        _ => false,
    };
    has.then(|| Value::from_object(Method { value: value.clone(), name: METHODS[at] }))
}

#[derive(Debug)]
struct Method {
    value: Value,
    name: &'static str,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State, args: &[Value]) -> Result<Value, Error> {
        self.value.call_method(state, self.name, args)
    }
}

/// A macro whose last two parameters take what its others do not: see `prepare`.
#[derive(Debug)]
struct Variadic {
    inner: Value,
    names: Vec<String>,
}

pub(crate) fn variadic(value: &Value) -> Value {
    let names = value.get_attr("arguments").and_then(|names| Ok(names.try_iter()?.collect::<Vec<_>>()));
    let names: Vec<String> = names.unwrap_or_default().iter().map(Value::to_string).collect();
    match names.split_last_chunk::<2>() {
        Some((own, [varargs, kwargs])) if varargs == "varargs" && kwargs == "kwargs" => {
            Value::from_object(Variadic { inner: value.clone(), names: own.to_vec() })
        }
        _ => value.clone(),
    }
}

impl Object for Variadic {
    fn call(self: &Arc<Self>, state: &mut State, args: &[Value]) -> Result<Value, Error> {
        let (given, named): (&[Value], Kwargs) = from_args(args)?;
        let (own, rest) = given.split_at(given.len().min(self.names.len()));
        let mut passed = Vec::new();
        let mut others = Vec::new();
        for name in named.args() {
            let value: Value = named.get(name)?;
            let known = name == "caller" || self.names.iter().any(|own| own == name);
            if known { &mut passed } else { &mut others }.push((name.to_owned(), value));
        }
        passed.push(("varargs".into(), Value::from(Tuple::from(rest.to_vec()))));
        passed.push(("kwargs".into(), Value::from_pairs(others)));
        let passed = Value::from(passed.into_iter().collect::<Kwargs>());
        self.inner.call(state, &[own, &[passed]].concat())
    }
}
