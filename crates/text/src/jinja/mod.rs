//! The template environment: jinja2 as transformers sets it up, on a budget.

mod arguments;
mod filters;
mod json;
mod methods;
mod objects;
mod operators;
mod prepare;
mod print;
mod program;
mod tests;
mod thread;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value, escape_formatter,
};

use crate::{clock, limits};
pub(crate) use prepare::{prepare, reads};
use program::Program;
pub(crate) use thread::{Failed, Job, render};

/// Marks an error as the template's own refusal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Raised(pub String);

/// An error in what a template does.
fn refuse(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

fn too_long() -> Error {
    refuse(format!("it wrote more than {} bytes", limits::OUTPUT_BYTES))
}

/// An environment without templates. `time` fixes the clock, in seconds since 1970; `stop` ends the run.
pub(crate) fn environment(
    steps: u64,
    time: Option<u64>,
    stop: Arc<AtomicBool>,
) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(syntax()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(steps));
    env.set_recursion_limit(limits::TEMPLATE_DEPTH);
    env.set_unknown_method_callback(methods::call);
    let written = AtomicUsize::new(0);
    env.set_formatter(move |out, state, value| {
        if stop.load(Ordering::Relaxed) {
            return Err(refuse("stopped"));
        }
        let text = print::text(state, value)?;
        // Macros and blocks write twice: into their value, then into the output.
        if written.fetch_add(text.len(), Ordering::Relaxed) > limits::OUTPUT_BYTES * 4 {
            return Err(too_long());
        }
        match state.auto_escape() {
            AutoEscape::None => Ok(out.write_str(&text)?),
            _ => escape_formatter(out, state, value),
        }
    });
    operators::add_to(&mut env);
    tests::add_to(&mut env);
    filters::add_to(&mut env);
    env.add_filter("tojson", json::tojson);
    env.add_function("raise_exception", |state: &State, message: &Value| -> Result<String, Error> {
        let message = print::text(state, message)?.into_owned();
        let raised = Raised(message.clone());
        Err(refuse(message).with_source(raised))
    });
    env.add_function("strftime_now", move |format: &str| -> Result<String, Error> {
        if format.len() > 256 {
            return Err(refuse("strftime_now takes at most 256 bytes"));
        }
        Ok(clock::strftime(time.unwrap_or_else(clock::now), format))
    });
    Ok(env)
}

fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}
