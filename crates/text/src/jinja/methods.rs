//! Python's methods of text, lists and maps.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::arguments::Arguments;
use super::operators::{charge, compare, fits, list, printable};
use super::print::text as printed;
use super::{refuse, words};

/// Methods that change a value. Templates are written for a sandbox that has none of them.
const CHANGING: &str = " append clear extend insert pop popitem remove reverse setdefault sort update ";

/// Called for every method that the template engine does not know.
pub(crate) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let result = of_text(state, value, text, method, args)?;
        let made = result.as_str().filter(|_| value.is_safe()).map(str::to_owned);
        return Ok(made.map_or(result, Value::from_safe_string));
    }
    if value.as_object().is_none() {
        return Err(ErrorKind::UnknownMethod.into());
    }
    for argument in args.iter().filter(|argument| argument.as_object().is_some()) {
        charge(state, argument)?;
    }
    match (method, value.kind()) {
        ("copy", ValueKind::Map | ValueKind::Seq) if args.is_empty() => Ok(value.clone()),
        ("index" | "count", ValueKind::Seq) => {
            let [wanted] = args else { return Err(refuse(format!("{method} takes one argument"))) };
            let mut found = 0;
            for (at, item) in value.try_iter()?.enumerate() {
                state.consume_fuel(1)?;
                if compare(state, &item, wanted, |a, b| a == b)? {
                    if method == "index" {
                        return Ok(Value::from(at));
                    }
                    found += 1;
                }
            }
            if method == "count" {
                Ok(Value::from(found))
            } else {
                Err(refuse("index: it is not in the list"))
            }
        }
        (_, ValueKind::Map | ValueKind::Seq) if CHANGING.contains(&format!(" {method} ")) => Err(refuse(
            format!("`{method}` would change a value, which templates must not: add lists with +"),
        )),
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn of_text(
    state: &mut State,
    value: &Value,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let every = |test: fn(char) -> bool| Ok(Value::from(!text.is_empty() && text.chars().all(test)));
    match method {
        "split" | "rsplit" => {
            let args = Arguments::bind("split", args, ["sep", "maxsplit"])?;
            let most = args.whole(1)?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            let parts = words::split(text, args.text(0)?, most, method == "rsplit")?;
            list(state, parts.len(), parts.into_iter().map(Value::from)).map(Value::from)
        }
        "partition" | "rpartition" => {
            let args = Arguments::bind("partition", args, [""])?;
            words::partition(text, args.required(0)?, method == "rpartition")
        }
        "splitlines" => {
            let args = Arguments::bind("splitlines", args, ["keepends"])?;
            let lines = words::lines(text, args.switch(0).unwrap_or(false));
            list(state, lines.len(), lines.into_iter().map(Value::from)).map(Value::from)
        }
        "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith" => {
            search(text, method, args)
        }
        "ljust" | "rjust" | "center" | "zfill" => pad(text, method, args),
        "removeprefix" | "removesuffix" => {
            let args = Arguments::bind("removeprefix", args, [""])?;
            let end = args.required(0)?;
            let rest = if method == "removeprefix" { text.strip_prefix(end) } else { text.strip_suffix(end) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "replace" => {
            let args = Arguments::bind("replace", args, ["old", "new", "count"])?;
            let (old, new) = (args.required(0)?, args.required(1)?);
            let most = args.whole(2)?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            replace(text, old, new, most).map(Value::from)
        }
        "join" => {
            let args = Arguments::bind("join", args, [""])?;
            let items = args.get(0).ok_or_else(|| refuse("join takes a list"))?;
            join(state, text, items).map(Value::from)
        }
        "format" => {
            args.iter().try_for_each(|value| charge(state, value))?;
            // `{0[key]}` and `{0.key}` need the value itself.
            let looks_inside = text.contains("[") || text.contains("{0.");
            let args = if looks_inside { args.to_vec() } else { printable(state, value, args)? };
            fits(Some(formatted(text, '{', &args)))?;
            pycompat::unknown_method_callback(state, value, method, &args)
        }
        "title" => Ok(Value::from(words::title(text))),
        "swapcase" => Ok(Value::from(words::swapped(text))),
        "casefold" => Ok(Value::from(text.to_lowercase().replace('ß', "ss"))),
        "isdecimal" => every(words::is_decimal),
        "isdigit" => every(words::is_digit),
        "isprintable" => Ok(Value::from(!text.chars().any(char::is_control))),
        "isidentifier" => {
            let first = text.starts_with(|char: char| char.is_alphabetic() || char == '_');
            Ok(Value::from(first && text.chars().all(|char| char.is_alphanumeric() || char == '_')))
        }
        "istitle" => Ok(Value::from(text.chars().any(char::is_alphabetic) && words::title(text) == text)),
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// The methods that look for a part, between two positions if these are given.
fn search(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::bind("a search in text", args, ["", "", ""])?;
    let length = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (at + length).max(0) } else { at.min(length) };
    let start = place(args.whole(1)?.unwrap_or(0));
    let stop = place(args.whole(2)?.unwrap_or(length)).max(start);
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    let part = &text[byte(start)..byte(stop)];
    if let "startswith" | "endswith" = method {
        let test =
            |end: &str| if method == "startswith" { part.starts_with(end) } else { part.ends_with(end) };
        return match args.get(0) {
            Some(ends) if ends.is_tuple() => {
                Ok(Value::from(ends.try_iter()?.any(|end| end.as_str().is_some_and(test))))
            }
            _ => args.required(0).map(|end| Value::from(test(end))),
        };
    }
    let wanted = args.required(0)?;
    let found = match method {
        "count" => {
            let count =
                if wanted.is_empty() { part.chars().count() + 1 } else { part.matches(wanted).count() };
            return Ok(Value::from(count));
        }
        "find" | "index" => part.find(wanted),
        _ => part.rfind(wanted),
    };
    match found {
        Some(at) => Ok(Value::from(start + part[..at].chars().count() as i64)),
        None if method.ends_with("index") => Err(refuse(format!("{method}: {wanted:?} is not in the text"))),
        None => Ok(Value::from(-1)),
    }
}

/// The methods that fill text up to a width.
pub(crate) fn pad(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::bind("filling up", args, ["width", "fillchar"])?;
    let width = args.size(0)?.ok_or_else(|| refuse(format!("{method} takes a width")))?;
    let fill = args.text(1)?.unwrap_or(if method == "zfill" { "0" } else { " " });
    if fill.chars().count() != 1 {
        return Err(refuse(format!("{method} takes one character to fill with")));
    }
    fits(width.checked_mul(fill.len()))?;
    let gap = width.saturating_sub(text.chars().count());
    let left = match method {
        "ljust" => 0,
        "center" => gap / 2 + (gap & width & 1),
        _ => gap,
    };
    let sign = usize::from(method == "zfill" && text.starts_with(['+', '-']));
    let (before, after) = (fill.repeat(left), fill.repeat(gap - left));
    Ok(Value::from([&text[..sign], &before, &text[sign..], &after].concat()))
}

/// Python's `str.replace`, of at most `most` places.
pub(crate) fn replace(text: &str, old: &str, new: &str, most: usize) -> Result<String, Error> {
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    fits(found.min(most).checked_mul(new.len()).and_then(|size| size.checked_add(text.len())))?;
    Ok(text.replacen(old, new, most))
}

/// The printed items, with `separator` between them.
pub(crate) fn join(state: &State, separator: &str, items: &Value) -> Result<String, Error> {
    let mut out = String::new();
    for (at, item) in items.try_iter()?.checked().enumerate() {
        state.consume_fuel(1)?;
        out.push_str(if at > 0 { separator } else { "" });
        out.push_str(&printed(state, &item?)?);
        fits(Some(out.len()))?;
    }
    Ok(out)
}

/// An upper bound for the length of formatted text: each placeholder may take the longest argument or the
/// largest number as its width.
pub(crate) fn formatted(text: &str, mark: char, args: &[Value]) -> usize {
    let width = |digits: &str| digits.parse().unwrap_or(if digits.is_empty() { 0 } else { usize::MAX });
    let widest = text.split(|char: char| !char.is_ascii_digit()).map(width).max().unwrap_or(0);
    let longest = args.iter().map(|arg| match arg.kind() {
        ValueKind::String => arg.as_str().map_or(0, str::len),
        ValueKind::Number => arg.as_usize().unwrap_or(0).max(400),
        _ => 400,
    });
    let each = widest.max(longest.max().unwrap_or(0));
    text.len().saturating_add(text.matches(mark).count().saturating_mul(each))
}
