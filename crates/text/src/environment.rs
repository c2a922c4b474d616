//! The template environment: jinja2 as transformers sets it up, on a budget.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use crate::{clock, json, limits, methods};

/// Marks an error as the template's own refusal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Raised(pub String);

/// An environment without templates; `time` fixes the clock, in seconds since 1970.
pub(crate) fn environment(time: Option<u64>) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(syntax()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(limits::TEMPLATE_STEPS));
    env.set_recursion_limit(limits::TEMPLATE_DEPTH);
    env.set_unknown_method_callback(methods::call);
    env.add_filter("tojson", json::tojson);
    env.add_filter("center", |text: &str, width: Option<usize>| {
        methods::center(text, width.unwrap_or(80), None)
    });
    env.add_function("raise_exception", |message: String| -> Result<String, Error> {
        let raised = Raised(message.clone());
        Err(Error::new(ErrorKind::InvalidOperation, message).with_source(raised))
    });
    env.add_function("strftime_now", move |format: &str| -> Result<String, Error> {
        if format.len() > 256 {
            return Err(Error::new(ErrorKind::InvalidOperation, "strftime_now takes at most 256 bytes"));
        }
        Ok(clock::strftime(time.unwrap_or_else(clock::now), format))
    });
    Ok(env)
}

/// Prepares a source for compiling.
///
/// `{% generation %}` blocks, which only mark text for training, become blocks that are always taken, with
/// the same whitespace control and line numbers. Over-long expressions are refused: folding constants takes
/// time quadratic in their length. Errors come with their line.
pub(crate) fn prepare(source: &str) -> Result<String, (usize, Error)> {
    let mut out = String::with_capacity(source.len());
    let (mut copied, mut inside, mut tag_start) = (0, 0, false);
    let mut line = 1;
    for token in tokenize(source, false, syntax().map_err(|error| (0, error))?) {
        let (token, span) = token.map_err(|error| (line, error))?;
        line = span.start_line.into();
        let block = match token {
            Token::Ident("generation") if tag_start => Some("if true"),
            Token::Ident("endgeneration") if tag_start => Some("endif"),
            _ => None,
        };
        if let Some(block) = block {
            out.push_str(source.get(copied..span.start_offset as usize).unwrap_or_default());
            out.push_str(block);
            copied = span.end_offset as usize;
        }
        tag_start = matches!(token, Token::BlockStart);
        inside = if matches!(token, Token::BlockStart | Token::VariableStart) { 0 } else { inside + 1 };
        if inside > limits::EXPRESSION_TOKENS {
            let reason = format!("one tag holds more than {} tokens; split it", limits::EXPRESSION_TOKENS);
            return Err((line, Error::new(ErrorKind::SyntaxError, reason)));
        }
    }
    out.push_str(source.get(copied..).unwrap_or_default());
    Ok(out)
}

fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}
