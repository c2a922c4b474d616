//! Arguments of filters and methods by position or name, as Python binds them.

use minijinja::Error;
use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs};

use super::refuse;

/// The arguments of one call, in the order of their names; `None` where none was given.
pub(crate) struct Arguments<const N: usize> {
    what: &'static str,
    names: [&'static str; N],
    given: [Option<Value>; N],
}

/// All arguments of a filter after its value.
pub(crate) type Others = Rest<ValueOrKwargs>;

/// As the engine calls filters and methods: named arguments are one value at the end.
pub(crate) fn values(others: &Others) -> Vec<Value> {
    others.iter().map(|value| Value::clone(value)).collect()
}

impl<const N: usize> Arguments<N> {
    /// Binds the arguments of a filter.
    pub fn of(what: &'static str, others: &Others, names: [&'static str; N]) -> Result<Self, Error> {
        Arguments::bind(what, &values(others), names)
    }

    /// Binds the arguments of `what`; a name that is empty goes by position only.
    pub fn bind(what: &'static str, args: &[Value], names: [&'static str; N]) -> Result<Self, Error> {
        let (args, named) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Kwargs::try_from(last.clone())?),
            _ => (args, Kwargs::from_iter([] as [(&str, Value); 0])),
        };
        if args.len() > N {
            return Err(refuse(format!("{what} takes at most {N} arguments and {} were given", args.len())));
        }
        let mut given = [const { None }; N];
        for (at, name) in names.iter().enumerate() {
            given[at] = match args.get(at) {
                Some(value) => Some(value.clone()),
                None if named.has(name) => Some(named.get(name)?),
                None => None,
            };
        }
        named.assert_all_used()?;
        Ok(Arguments { what, names, given })
    }

    /// An argument, whatever it is.
    pub fn value(&self, at: usize) -> Option<Value> {
        self.given[at].clone()
    }

    /// An argument, unless it is none.
    pub fn get(&self, at: usize) -> Option<&Value> {
        self.given[at].as_ref().filter(|value| !value.is_none() && !value.is_undefined())
    }

    /// Text.
    pub fn text(&self, at: usize) -> Result<Option<&str>, Error> {
        self.get(at).map(|value| value.as_str().ok_or_else(|| self.wrong(at, "text"))).transpose()
    }

    /// Text that must be there.
    pub fn required(&self, at: usize) -> Result<&str, Error> {
        self.text(at)?.ok_or_else(|| self.wrong(at, "text"))
    }

    /// A whole number.
    pub fn whole(&self, at: usize) -> Result<Option<i64>, Error> {
        let whole =
            |value: &Value| i64::try_from(value.clone()).map_err(|_| self.wrong(at, "a whole number"));
        self.get(at).map(whole).transpose()
    }

    /// A size; what is negative is 0.
    pub fn size(&self, at: usize) -> Result<Option<usize>, Error> {
        Ok(self.whole(at)?.map(|whole| usize::try_from(whole).unwrap_or(0)))
    }

    /// A switch.
    pub fn switch(&self, at: usize) -> Option<bool> {
        self.get(at).map(Value::is_true)
    }

    fn wrong(&self, at: usize, wanted: &str) -> Error {
        let name = if self.names[at].is_empty() { String::new() } else { format!(" `{}`", self.names[at]) };
        refuse(format!("{} takes {wanted} as its argument{name}", self.what))
    }
}
