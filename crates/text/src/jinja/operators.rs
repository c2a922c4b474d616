//! Python's operators on template values. Each pays for its work in steps and is bounded in what it builds.

use std::cmp::Ordering;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, State};

use super::objects::{method, variadic};
use super::print::{escaped, text};
use super::{methods, refuse};
use crate::limits;

/// Adds them as filters, by the names that `program.rs` calls.
pub(crate) fn add_to(env: &mut Environment) {
    env.add_filter("+", add);
    env.add_filter("*", multiply);
    env.add_filter("%", remainder);
    env.add_filter("~", concatenate);
    env.add_filter("[:]", slice);
    env.add_filter("in", |state: &State, value: &Value, container: &Value| contains(state, container, value));
    env.add_filter("each", characters);
    env.add_filter("changed", |state: &mut State, value: &Value, args: Rest<Value>| {
        args.iter().try_for_each(|value| charge(state, value))?;
        value.call_method(state, "changed", &args)
    });
    env.add_filter("{}", |state: &State, pairs: Rest<Value>| map(state, &pairs));
    env.add_filter("macro", |value: &Value| variadic(value));
    env.add_filter(".method", |value: &Value, name: &str| {
        method(value, name).unwrap_or_else(|| value.get_attr(name).unwrap_or_default())
    });
    env.add_filter("[method]", |value: &Value, name: &Value| {
        let item = value.get_item(name).unwrap_or_default();
        let found = name.as_str().filter(|_| item.is_undefined()).and_then(|name| method(value, name));
        found.unwrap_or(item)
    });
    env.add_filter("charged", |state: &State, value: &Value| charge(state, value).map(|()| value.clone()));
    for (name, test) in COMPARISONS {
        env.add_filter(name, move |state: &State, a: &Value, b: &Value| compare(state, a, b, test));
    }
}

/// Comparisons by their spelling.
pub(crate) const COMPARISONS: [(&str, fn(&Value, &Value) -> bool); 6] = [
    ("==", |a, b| a == b),
    ("!=", |a, b| a != b),
    ("<", |a, b| a.cmp(b) == Ordering::Less),
    ("<=", |a, b| a.cmp(b) != Ordering::Greater),
    (">", |a, b| a.cmp(b) == Ordering::Greater),
    (">=", |a, b| a.cmp(b) != Ordering::Less),
];

/// Compares; containers cost what they hold.
pub(crate) fn compare(
    state: &State,
    a: &Value,
    b: &Value,
    test: fn(&Value, &Value) -> bool,
) -> Result<bool, Error> {
    if a.as_object().is_some() && b.as_object().is_some() {
        charge(state, a)?;
    } else if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        state.consume_fuel(a.len().min(b.len()) as u64 / 64)?;
    }
    Ok(test(a, b))
}

/// Takes steps for everything a value holds, and refuses what is nested too deeply to be walked.
pub(crate) fn charge(state: &State, value: &Value) -> Result<(), Error> {
    let mut open = Vec::new();
    let mut item = Some(value.clone());
    while let Some(value) = item {
        state.consume_fuel(value.as_str().map_or(0, str::len) as u64 / 64)?;
        if value.as_object().is_some() && value.try_iter().is_ok() {
            if open.len() >= limits::JSON_DEPTH {
                return Err(refuse(format!("a value has more than {} levels", limits::JSON_DEPTH)));
            }
            let keyed = value.kind() == ValueKind::Map;
            open.push((value.try_iter()?, keyed.then_some(value)));
        }
        item = None;
        while let Some((iter, map)) = open.last_mut() {
            match iter.next() {
                Some(next) => {
                    state.consume_fuel(1)?;
                    item = Some(map.as_ref().map_or(Ok(next.clone()), |map| map.get_item(&next))?);
                    break;
                }
                None => drop(open.pop()),
            }
        }
    }
    Ok(())
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    refuse(format!("{operator} does not work on {} and {}", a.kind(), b.kind()))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// A list of `items`, paid for before it is built.
pub(crate) fn list(
    state: &State,
    size: usize,
    items: impl Iterator<Item = Value>,
) -> Result<Vec<Value>, Error> {
    if size > limits::LIST_ITEMS {
        return Err(refuse(format!("a list of more than {} items", limits::LIST_ITEMS)));
    }
    state.consume_fuel(size as u64 / 2)?;
    Ok(items.take(size).collect())
}

fn sequence(items: Vec<Value>, tuple: bool) -> Value {
    if tuple { Value::from(Tuple::from(items)) } else { Value::from(items) }
}

/// Refuses text that no prompt can hold.
pub(crate) fn fits(size: Option<usize>) -> Result<(), Error> {
    match size {
        Some(size) if size <= limits::OUTPUT_BYTES => Ok(()),
        _ => Err(refuse(format!("a text of more than {} bytes", limits::OUTPUT_BYTES))),
    }
}

pub(crate) fn add(state: &State, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        fits(left.len().checked_add(right.len()))?;
        // Text that `escape` or `safe` marked escapes what it is joined with.
        return Ok(match (a.is_safe(), b.is_safe()) {
            (false, false) => Value::from([left, right].concat()),
            (true, true) => Value::from_safe_string([left, right].concat()),
            (true, false) => Value::from_safe_string(format!("{left}{}", escaped(right))),
            (false, true) => Value::from_safe_string(format!("{}{right}", escaped(left))),
        });
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        let (left, right) = (a.try_iter()?, b.try_iter()?);
        let size = a.len().zip(b.len()).and_then(|(a, b)| a.checked_add(b));
        let items = list(state, size.ok_or_else(|| unsupported("+", a, b))?, left.chain(right))?;
        return Ok(sequence(items, a.is_tuple()));
    }
    numbers("+", a, b, i128::checked_add, |a, b| a + b)
}

/// Text that is marked as markup if what it came from is.
pub(crate) fn like(origin: &Value, text: String) -> Value {
    if origin.is_safe() { Value::from_safe_string(text) } else { Value::from(text) }
}

fn multiply(state: &State, a: &Value, b: &Value) -> Result<Value, Error> {
    let (repeated, times) = if b.as_str().is_some() || is_list(b) { (b, a) } else { (a, b) };
    let count = || match i128::try_from(times.clone()) {
        Ok(count) if times.is_integer() || times.kind() == ValueKind::Bool => {
            Ok(usize::try_from(count.max(0)).unwrap_or(usize::MAX))
        }
        _ => Err(unsupported("*", a, b)),
    };
    if let Some(text) = repeated.as_str() {
        let count = count()?;
        fits(text.len().checked_mul(count))?;
        return Ok(like(repeated, text.repeat(count)));
    }
    if is_list(repeated) {
        let items = list(state, repeated.len().unwrap_or(usize::MAX), repeated.try_iter()?)?;
        let size = items.len().saturating_mul(count()?);
        return Ok(sequence(list(state, size, items.into_iter().cycle())?, repeated.is_tuple()));
    }
    numbers("*", a, b, i128::checked_mul, |a, b| a * b)
}

fn remainder(state: &State, a: &Value, b: &Value) -> Result<Value, Error> {
    if a.as_str().is_some() {
        let args = match b.kind() {
            ValueKind::Map => vec![Value::from(kwargs(b)?)],
            _ if b.is_tuple() => b.try_iter()?.collect(),
            _ => vec![b.clone()],
        };
        return printf(state, a, args);
    }
    let floored = |a: i128, b: i128| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    };
    let float = |a: f64, b: f64| {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    if f64::try_from(b.clone()).is_ok_and(|b| b == 0.0) {
        return Err(refuse("% by zero"));
    }
    numbers("%", a, b, floored, float)
}

fn kwargs(map: &Value) -> Result<Kwargs, Error> {
    let pairs = map.try_iter()?.map(|key| Ok((key.to_string(), map.get_item(&key)?)));
    pairs.collect::<Result<Vec<_>, Error>>().map(|pairs| pairs.into_iter().collect())
}

/// Python's `pattern % args`.
pub(crate) fn printf(state: &State, pattern: &Value, args: Vec<Value>) -> Result<Value, Error> {
    let text = text(state, pattern)?;
    let args = printable(state, pattern, &args)?;
    fits(Some(methods::formatted(&text, '%', &args)))?;
    format(FormatStyle::Printf, &text, &args).map(|text| like(pattern, text))
}

/// Arguments of a format: containers as text, and text escaped if the pattern is markup.
pub(crate) fn printable(state: &State, pattern: &Value, args: &[Value]) -> Result<Vec<Value>, Error> {
    let printed = |value: &Value| match value.as_object() {
        Some(_) if value.is_kwargs() => charge(state, value).map(|()| value.clone()),
        Some(_) => text(state, value).map(|text| Value::from(text.into_owned())),
        None if pattern.is_safe() && !value.is_safe() => {
            Ok(value.as_str().map_or_else(|| value.clone(), |text| Value::from(escaped(text))))
        }
        None => Ok(value.clone()),
    };
    args.iter().map(printed).collect()
}

fn numbers(
    operator: &str,
    a: &Value,
    b: &Value,
    whole: fn(i128, i128) -> Option<i128>,
    float: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    let is_number = |value: &Value| value.is_number() || value.kind() == ValueKind::Bool;
    if !is_number(a) || !is_number(b) {
        return Err(unsupported(operator, a, b));
    }
    if is_whole(a) && is_whole(b) {
        let result = whole(a.clone().try_into()?, b.clone().try_into()?);
        let result = result.ok_or_else(|| refuse(format!("{operator} has a result that is too large")))?;
        return Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from));
    }
    Ok(Value::from(float(a.clone().try_into()?, b.clone().try_into()?)))
}

fn concatenate(state: &State, a: &Value, b: &Value) -> Result<String, Error> {
    let (left, right) = (text(state, a)?, text(state, b)?);
    fits(left.len().checked_add(right.len()))?;
    Ok([left, right].concat())
}

/// What a loop over a value yields: the characters of text, else itself.
pub(crate) fn characters(state: &State, value: &Value) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return Ok(value.clone()) };
    state.consume_fuel(text.len() as u64 / 2)?;
    Ok(Value::from(text.chars().map(Value::from).collect::<Vec<_>>()))
}

fn slice(state: &State, value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if value.as_str().is_none() && !is_list(value) {
        return Err(refuse(format!("{} cannot be sliced", value.kind())));
    }
    let all = characters(state, value)?;
    let items = list(state, all.len().unwrap_or(usize::MAX), all.try_iter()?)?;
    let number =
        |value: &Value| if value.is_none() { Ok(None) } else { i64::try_from(value.clone()).map(Some) };
    let (start, stop, step) = (number(start)?, number(stop)?, number(step)?.unwrap_or(1));
    if step == 0 {
        return Err(refuse("a slice cannot have steps of 0"));
    }
    let length = items.len() as i64;
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |at: i64| if at < 0 { (at.saturating_add(length)).max(low) } else { at.min(high) };
    let mut at = start.map_or(if step > 0 { low } else { high }, place);
    let stop = stop.map_or(if step > 0 { high } else { low }, place);
    let mut picked = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        picked.extend(items.get(at as usize).cloned());
        at = at.saturating_add(step);
    }
    Ok(match value.as_str() {
        Some(_) => like(value, picked.iter().filter_map(Value::as_str).collect()),
        None => sequence(picked, value.is_tuple()),
    })
}

/// `value in container`.
pub(crate) fn contains(state: &State, container: &Value, value: &Value) -> Result<bool, Error> {
    if let (Some(text), Some(part)) = (container.as_str(), value.as_str()) {
        return Ok(text.contains(part));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::String => Ok(text(state, container)?.contains(&*text(state, value)?)),
        ValueKind::Map => {
            charge(state, value)?;
            container.as_object().map_or(Ok(false), |map| Ok(map.get_value(value).is_some()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in container.try_iter()?.checked() {
                state.consume_fuel(1)?;
                if compare(state, &item?, value, |a, b| a == b)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        kind => Err(refuse(format!("nothing can be in {kind}"))),
    }
}

fn map(state: &State, pairs: &[Value]) -> Result<Value, Error> {
    for key in pairs.iter().step_by(2).filter(|key| key.as_object().is_some()) {
        charge(state, key)?;
    }
    state.consume_fuel(pairs.len() as u64 / 2)?;
    Ok(Value::from_pairs(pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()))))
}
