//! Python methods in templates, with bounds on what one call may build.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use crate::limits;

/// Called for every method that the template engine does not know.
pub(crate) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    bound(value, method, args)?;
    if let Some(text) = value.as_str() {
        match method {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "center" => {
                let (width, fill): (usize, Option<&str>) = from_args(args)?;
                return center(text, width, fill);
            }
            "rsplit" => {
                let (mark, most): (&str, Option<i64>) = from_args(args)?;
                if mark.is_empty() {
                    return Err(Error::new(ErrorKind::InvalidOperation, "rsplit needs a separator"));
                }
                let parts = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1) + 1;
                let mut parts: Vec<String> = text.rsplitn(parts, mark).map(str::to_owned).collect();
                parts.reverse();
                return Ok(Value::from(parts));
            }
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// Python's `str.center`, also jinja2's filter of that name.
pub(crate) fn center(text: &str, width: usize, fill: Option<&str>) -> Result<Value, Error> {
    let fill = fill.unwrap_or(" ");
    if width.saturating_mul(fill.len()) > limits::OUTPUT_BYTES || fill.chars().count() != 1 {
        let reason = "center takes one character to fill with and a width that fits a prompt";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let gap = width.saturating_sub(text.chars().count());
    let left = gap / 2 + (gap & width & 1);
    Ok(Value::from(fill.repeat(left) + text + &fill.repeat(gap - left)))
}

/// Refuses calls whose result could be far larger than their inputs; the engine charges only afterwards.
fn bound(value: &Value, method: &str, args: &[Value]) -> Result<(), Error> {
    let Some(text) = value.as_str() else { return Ok(()) };
    let string = |index: usize| args.get(index).and_then(Value::as_str).unwrap_or_default();
    let size = match method {
        "replace" => {
            let found =
                if string(0).is_empty() { text.chars().count() + 1 } else { text.matches(string(0)).count() };
            text.len().saturating_add(found.saturating_mul(string(1).len()))
        }
        "join" => joined(text, args.first())?,
        "format" => formatted(text, args),
        _ => text.len(),
    };
    if size > limits::OUTPUT_BYTES {
        let reason = format!("{method} would build a string of more than {} bytes", limits::OUTPUT_BYTES);
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    Ok(())
}

fn joined(separator: &str, items: Option<&Value>) -> Result<usize, Error> {
    let Some(items) = items.filter(|items| items.as_str().is_none()) else { return Ok(separator.len()) };
    let mut size = 0usize;
    for item in items.try_iter()?.checked() {
        size = size.saturating_add(item?.as_str().map_or(1, str::len)).saturating_add(separator.len());
        if size > limits::OUTPUT_BYTES {
            break;
        }
    }
    Ok(size)
}

/// An upper bound: each placeholder may take the longest argument or the largest number as its width.
fn formatted(text: &str, args: &[Value]) -> usize {
    let width = |digits: &str| digits.parse().unwrap_or(if digits.is_empty() { 0 } else { usize::MAX });
    let widest = text.split(|char: char| !char.is_ascii_digit()).map(width).max().unwrap_or(0);
    let longest = args.iter().map(|arg| match arg.kind() {
        ValueKind::String => arg.as_str().map_or(0, str::len),
        ValueKind::Number => arg.as_usize().unwrap_or(0).max(400),
        _ => 400,
    });
    let each = widest.max(longest.max().unwrap_or(0));
    text.len().saturating_add(text.matches('{').count().saturating_mul(each))
}
