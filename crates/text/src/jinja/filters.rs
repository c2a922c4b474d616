//! Filters and functions of jinja2 that the engine lacks, or has in another way.

use std::fmt::Write;

use minijinja::filters as engine;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, State};
use minijinja_contrib::{filters as more, globals};

use super::arguments::{Arguments, Others, values};
use super::operators::{add, characters, charge, fits, printable, printf};
use super::print::{escaped, repr, text};
use super::{methods, refuse, words};

/// Adds them.
pub(crate) fn add_to(env: &mut Environment) {
    // These two are the engine's own and chain up lists that nobody pays for.
    env.remove_filter("chain");
    env.remove_filter("zip");
    for (name, filter) in [
        ("upper", Value::from_function(engine::upper)),
        ("lower", Value::from_function(engine::lower)),
        ("title", Value::from_function(engine::title)),
        ("capitalize", Value::from_function(engine::capitalize)),
        ("trim", Value::from_function(engine::trim)),
        ("safe", Value::from_function(engine::safe)),
        ("striptags", Value::from_function(more::striptags)),
        ("wordcount", Value::from_function(more::wordcount)),
    ] {
        env.add_filter(name, move |state: &mut State, value: &Value, rest: Others| {
            let printed = match value.as_str() {
                Some(_) => value.clone(),
                None => Value::from(text(state, value)?.into_owned()),
            };
            let rest = printable(state, value, &values(&rest))?;
            filter.call(state, &[&[printed], rest.as_slice()].concat())
        });
    }
    env.add_filter("string", |state: &State, value: &Value| {
        if value.as_str().is_some() { Ok(value.clone()) } else { repr_text(state, value) }
    });
    env.add_filter("join", join);
    env.add_filter("replace", replace);
    for name in ["escape", "e", "forceescape"] {
        env.add_filter(name, move |state: &State, value: &Value| -> Result<Value, Error> {
            let safe = value.is_safe() && name != "forceescape";
            if safe {
                return Ok(value.clone());
            }
            let markup = escaped(&text(state, value)?);
            fits(Some(markup.len()))?;
            Ok(Value::from_safe_string(markup))
        });
    }
    env.add_filter("format", |state: &State, pattern: &Value, args: Others| {
        printf(state, pattern, values(&args))
    });
    env.add_filter("indent", indent);
    for name in ["default", "d"] {
        env.add_filter(name, |value: &Value, rest: Others| -> Result<Value, Error> {
            let args = Arguments::of("default", &rest, ["default_value", "boolean"])?;
            let take = value.is_undefined() || args.switch(1) == Some(true) && !value.is_true();
            Ok(if take { args.value(0).unwrap_or_else(|| Value::from("")) } else { value.clone() })
        });
    }
    own(env);
    paid(env);
    env.add_function("joiner", |separator: Option<Value>| globals::joiner(separator));
    env.add_function("cycler", |items: Rest<Value>| globals::cycler(items.to_vec()));
}

/// Filters that are written here.
fn own(env: &mut Environment) {
    env.add_filter("center", |state: &State, value: &Value, width: Option<Value>| {
        methods::pad(&text(state, value)?, "center", &[width.unwrap_or_else(|| Value::from(80))])
    });
    env.add_filter("truncate", truncate);
    env.add_filter("wordwrap", wordwrap);
    env.add_filter("urlencode", urlencode);
    env.add_filter("xmlattr", xmlattr);
    env.add_filter("filesizeformat", more::filesizeformat);
    env.add_filter("pprint", |state: &State, value: &Value| {
        charge(state, value)?;
        repr(state, &sorted(value)?)
    });
    env.add_filter("sum", sum);
    env.add_filter("int", int);
    env.add_filter("float", float);
}

/// Filters of the engine that walk whole values, and so pay for that.
fn paid(env: &mut Environment) {
    env.add_filter("batch", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        // One row is filled up however short it is.
        state.consume_fuel(count as u64)?;
        engine::batch(state, value, count, fill)
    });
    env.add_filter("sort", |state: &State, value: Value, options: Kwargs| {
        deep(state, &value).and_then(|()| engine::sort(state, value, options))
    });
    env.add_filter("unique", |state: &State, value: Value, options: Kwargs| {
        deep(state, &value).and_then(|()| engine::unique(state, value, options))
    });
    env.add_filter("min", |state: &State, value: Value, options: Kwargs| {
        deep(state, &value).and_then(|()| engine::min(state, value, options))
    });
    env.add_filter("max", |state: &State, value: Value, options: Kwargs| {
        deep(state, &value).and_then(|()| engine::max(state, value, options))
    });
    env.add_filter("groupby", |state: &State, value: Value, key: Option<&str>, options: Kwargs| {
        deep(state, &value).and_then(|()| engine::groupby(value, key, options))
    });
    env.add_filter("dictsort", |state: &State, value: &Value, rest: Others| {
        let names = ["case_sensitive", "by", "reverse"];
        let args = Arguments::of("dictsort", &rest, names)?;
        let options = names.iter().enumerate().filter_map(|(at, &name)| Some((name, args.value(at)?)));
        deep(state, value).and_then(|()| engine::dictsort(value, options.collect()))
    });
}

fn indent(state: &State, value: &Value, rest: Others) -> Result<String, Error> {
    let args = Arguments::of("indent", &rest, ["width", "first", "blank"])?;
    let indent = match args.get(0) {
        Some(width) if width.as_str().is_some() => width.to_string(),
        _ => {
            let width = args.size(0)?.unwrap_or(4);
            fits(Some(width))?;
            " ".repeat(width)
        }
    };
    let (text, blank) = (text(state, value)?, args.switch(2).unwrap_or(false));
    let ended = format!("{text}\n");
    let lines = words::lines(&ended, false);
    fits(indent.len().checked_mul(lines.len()).and_then(|size| size.checked_add(text.len())))?;
    let mut out = if args.switch(1).unwrap_or(false) { indent.clone() } else { String::new() };
    for (at, line) in lines.into_iter().enumerate() {
        out.push_str(if at > 0 { "\n" } else { "" });
        out.push_str(if at > 0 && (blank || !line.is_empty()) { &indent } else { "" });
        out.push_str(line);
    }
    Ok(out)
}

/// The value with the keys of its maps in order.
fn sorted(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            keys.sort();
            let pair = |key: Value| Ok((key.clone(), sorted(&value.get_item(&key)?)?));
            keys.into_iter().map(pair).collect::<Result<Vec<_>, Error>>().map(Value::from_pairs)
        }
        ValueKind::Seq if !value.is_tuple() => {
            let items = value.try_iter()?.map(|item| sorted(&item));
            items.collect::<Result<Vec<_>, Error>>().map(Value::from)
        }
        _ => Ok(value.clone()),
    }
}

fn repr_text(state: &State, value: &Value) -> Result<Value, Error> {
    text(state, value).map(|text| Value::from(text.into_owned()))
}

/// Pays for comparing all that a list holds, as often as sorting does.
fn deep(state: &State, value: &Value) -> Result<(), Error> {
    let rounds = value.len().unwrap_or(0).max(1).ilog2() + 1;
    (0..rounds).try_for_each(|_| charge(state, value))
}

fn join(state: &mut State, value: &Value, rest: Others) -> Result<String, Error> {
    let args = Arguments::of("join", &rest, ["d", "attribute"])?;
    let separator = args.get(0).map_or(Ok("".into()), |separator| text(state, separator))?;
    let list = characters(state, value)?;
    let items = match args.get(1) {
        Some(name) => {
            let options: Kwargs = [("attribute", name.clone())].into_iter().collect();
            state.apply_filter("map", &[list, Value::from(options)])?
        }
        None => list,
    };
    methods::join(state, &separator, &items)
}

fn sum(state: &mut State, value: &Value, rest: Others) -> Result<Value, Error> {
    let args = Arguments::of("sum", &rest, ["attribute", "start"])?;
    let items = match args.get(0) {
        Some(name) => {
            let options: Kwargs = [("attribute", name.clone())].into_iter().collect();
            state.apply_filter("map", &[value.clone(), Value::from(options)])?
        }
        None => value.clone(),
    };
    let start = args.value(1).unwrap_or_else(|| Value::from(0));
    items.try_iter()?.checked().try_fold(start, |sum, item| {
        state.consume_fuel(1)?;
        add(state, &sum, &item?)
    })
}

fn replace(state: &State, value: &Value, rest: Others) -> Result<String, Error> {
    let args = Arguments::of("replace", &rest, ["old", "new", "count"])?;
    let most = args.size(2)?.unwrap_or(usize::MAX);
    let wanted = |at| args.get(at).ok_or_else(|| refuse("replace takes two texts"));
    methods::replace(&text(state, value)?, &text(state, wanted(0)?)?, &text(state, wanted(1)?)?, most)
}

fn truncate(state: &State, value: &Value, rest: Others) -> Result<String, Error> {
    let args = Arguments::of("truncate", &rest, ["length", "killwords", "end", "leeway"])?;
    let (length, leeway) = (args.size(0)?.unwrap_or(255), args.size(3)?.unwrap_or(5));
    let (text, end) = (text(state, value)?, args.text(2)?.unwrap_or("..."));
    let Some(room) = length.checked_sub(end.chars().count()) else {
        return Err(refuse(format!("truncate to {length} leaves no room for {end:?}")));
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.into_owned());
    }
    let kept: String = text.chars().take(room).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((words, _)) if !args.switch(1).unwrap_or(false) => words,
        _ => &kept,
    };
    Ok(format!("{kept}{end}"))
}

fn wordwrap(state: &State, value: &Value, rest: Others) -> Result<String, Error> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let args = Arguments::of("wordwrap", &rest, names)?;
    let width = args.size(0)?.unwrap_or(79);
    if width == 0 {
        return Err(refuse("wordwrap takes a width of at least 1"));
    }
    let separator = args.text(2)?.unwrap_or("\n");
    let text = text(state, value)?;
    fits(text.len().checked_mul(separator.len() + 1))?;
    state.consume_fuel(text.len() as u64 / 2)?;
    let (long, hyphens) = (args.switch(1).unwrap_or(true), args.switch(3).unwrap_or(true));
    let wrap = |line: &str| words::wrap(line, width, long, hyphens).join(separator);
    Ok(words::lines(&text, false).into_iter().map(wrap).collect::<Vec<_>>().join(separator))
}

fn urlencode(state: &State, value: &Value) -> Result<String, Error> {
    let quote = |value: &Value, safe: &str| -> Result<String, Error> {
        let mut out = String::new();
        for &byte in text(state, value)?.as_bytes() {
            let plain =
                byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.as_bytes().contains(&byte);
            match byte {
                b' ' if safe.is_empty() => out.push('+'),
                _ if plain => out.push(char::from(byte)),
                _ => drop(write!(out, "%{byte:02X}")),
            }
        }
        Ok(out)
    };
    if value.as_str().is_some() || value.try_iter().is_err() {
        return quote(value, "/");
    }
    let mut pairs = Vec::new();
    for item in value.try_iter()? {
        let is_map = value.kind() == ValueKind::Map;
        let (key, value) = if is_map {
            (item.clone(), value.get_item(&item)?)
        } else {
            (item.get_item_by_index(0)?, item.get_item_by_index(1)?)
        };
        pairs.push(quote(&key, "")? + "=" + &quote(&value, "")?);
    }
    Ok(pairs.join("&"))
}

fn xmlattr(state: &State, value: &Value, autospace: Option<bool>) -> Result<String, Error> {
    let mut out = String::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let name = text(state, &key)?;
        if name.contains(|char: char| words::is_space(char) || "/>=".contains(char)) {
            return Err(refuse(format!("xmlattr: {name:?} is no name of an attribute")));
        }
        let space = if out.is_empty() && autospace == Some(false) { "" } else { " " };
        let _ = write!(out, "{space}{}=\"{}\"", escaped(&name), escaped(&text(state, &item)?));
    }
    Ok(out)
}

fn int(state: &State, value: &Value, rest: Others) -> Result<Value, Error> {
    let args = Arguments::of("int", &rest, ["default", "base"])?;
    let default = || args.value(0).unwrap_or_else(|| Value::from(0));
    let base = args.size(1)?.and_then(|base| u32::try_from(base).ok()).unwrap_or(10);
    let tidy = value.as_str().map(|text| Value::from(text.trim().replace('_', "")));
    if tidy.as_ref().and_then(Value::as_str).is_some_and(|text| f64::is_infinite(text.parse().unwrap_or(0.0)))
    {
        return Ok(default());
    }
    if value.as_object().is_some() {
        return Ok(default());
    }
    let options: Kwargs = [("base", Value::from(base))].into_iter().collect();
    let number = engine::int(state, tidy.as_ref().unwrap_or(value), Some(default()), None, options);
    Ok(number.unwrap_or_else(|_| default()))
}

fn float(value: &Value, rest: Others) -> Result<Value, Error> {
    let args = Arguments::of("float", &rest, ["default"])?;
    let number = match value.as_str() {
        Some(text) => text.trim().replace('_', "").parse().ok(),
        None if value.is_undefined() => None,
        None if value.kind() == ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.map_or_else(|| args.value(0).unwrap_or_else(|| Value::from(0.0)), Value::from))
}
