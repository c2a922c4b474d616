//! The tests (`x is iterable`) whose answers in jinja2 differ from the engine's, and those that must pay.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, State};

use super::operators::{COMPARISONS, compare, contains};
use super::print::is_named;

/// Adds them.
pub(crate) fn add_to(env: &mut Environment) {
    env.add_test("iterable", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Iterable => true,
        ValueKind::Map => is_map(value),
        _ => false,
    });
    // In Python whatever has a length and can be indexed; not what `items()` and `map` give.
    env.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq => true,
        ValueKind::Map => is_map(value),
        _ => false,
    });
    env.add_test("mapping", |value: &Value| value.kind() == ValueKind::Map && is_map(value));
    env.add_test("callable", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::Plain => true,
        _ => is_named(value, "<macro "),
    });
    env.add_test("integer", |value: &Value| value.is_integer() && value.kind() == ValueKind::Number);
    env.add_test("in", |state: &State, value: &Value, container: &Value| contains(state, container, value));
    let text = |value: &Value, end: &Value| Some((value.to_str()?, end.to_str()?));
    env.add_test("startingwith", move |value: &Value, end: &Value| {
        text(value, end).is_some_and(|(text, start)| text.starts_with(&*start))
    });
    env.add_test("endingwith", move |value: &Value, end: &Value| {
        text(value, end).is_some_and(|(text, end)| text.ends_with(&*end))
    });
    let words = ["eq equalto ==", "ne !=", "lt lessthan <", "le <=", "gt greaterthan >", "ge >="];
    for ((_, test), words) in COMPARISONS.into_iter().zip(words) {
        for word in words.split(' ') {
            env.add_test(word, move |state: &State, a: &Value, b: &Value| compare(state, a, b, test));
        }
    }
}

/// The engine has macros and namespaces among its maps.
fn is_map(value: &Value) -> bool {
    !is_named(value, "<macro ") && !is_named(value, "Namespace")
}
