//! What is changed in the source of a template before it is compiled.

use minijinja::machinery::{Token, tokenize};
use minijinja::{Error, ErrorKind};

use super::syntax;
use crate::limits;

/// Prepares a source for compiling.
///
/// Line ends become `\n`, as in jinja2. `{% generation %}` blocks, which only mark text for training, become
/// blocks that are always taken, with the same whitespace control and line numbers. Heads of macros change as
/// [`Head`] says. Over-long expressions are refused: folding constants takes time quadratic in their length.
/// Errors come with their line.
pub(crate) fn prepare(source: &str) -> Result<String, (usize, Error)> {
    let source = &source.replace("\r\n", "\n").replace('\r', "\n");
    let mut edits = Edits { source, out: String::with_capacity(source.len()), copied: 0 };
    let (mut inside, mut tag_start) = (0, false);
    let mut line = 1;
    let mut head: Option<Head> = None;
    for token in tokenize(source, false, syntax().map_err(|error| (0, error))?) {
        let (token, span) = token.map_err(|error| (line, error))?;
        line = span.start_line.into();
        let at = (span.start_offset as usize, span.end_offset as usize);
        match token {
            Token::Ident("generation") if tag_start => edits.replace(at, "if true"),
            Token::Ident("endgeneration") if tag_start => edits.replace(at, "endif"),
            Token::Ident("macro") if tag_start => head = Some(Head::new(source)),
            Token::BlockEnd => {
                if let Some(head) = head.take() {
                    head.end(&mut edits, at);
                }
            }
            _ => {
                if let Some(head) = &mut head {
                    head.read(&token, &mut edits, at);
                }
            }
        }
        tag_start = matches!(token, Token::BlockStart);
        inside = if matches!(token, Token::BlockStart | Token::VariableStart) { 0 } else { inside + 1 };
        if inside > limits::EXPRESSION_TOKENS {
            let reason = format!("one tag holds more than {} tokens; split it", limits::EXPRESSION_TOKENS);
            return Err((line, Error::new(ErrorKind::SyntaxError, reason)));
        }
    }
    edits.replace((source.len(), source.len()), "");
    Ok(edits.out)
}

/// Whether a template reads a variable of this name that its caller gives.
pub(crate) fn reads(source: &str, name: &str) -> bool {
    let Ok(syntax) = syntax() else { return false };
    let mut before = None;
    for (token, _) in tokenize(source, false, syntax).map_while(Result::ok) {
        let found = matches!(token, Token::Ident(ident) if ident == name);
        match before.replace(token) {
            Some(Token::Dot) => {}
            // Set before it is read: a variable of its own.
            Some(Token::Ident("set")) if found => return false,
            _ if found => return true,
            _ => {}
        }
    }
    false
}

/// A source that is copied with changes.
struct Edits<'s> {
    source: &'s str,
    out: String,
    copied: usize,
}

impl Edits<'_> {
    fn replace(&mut self, (start, end): (usize, usize), text: &str) {
        self.out.push_str(self.source.get(self.copied..start).unwrap_or_default());
        self.out.push_str(text);
        self.copied = end;
    }
}

/// The head of a macro while it is read.
///
/// Where the source speaks of `varargs` or `kwargs`, macros get parameters of these names. A default that
/// reads an earlier parameter moves into the body: the engine computes defaults before there are parameters.
struct Head<'s> {
    variadic: bool,
    /// Open brackets; parameters stand within one.
    depth: usize,
    parameters: Vec<&'s str>,
    /// Where the default that is being read begins, and whether it reads a parameter.
    default: Option<(usize, bool)>,
    moved: Vec<(&'s str, &'s str)>,
}

impl<'s> Head<'s> {
    fn new(source: &str) -> Head<'s> {
        let variadic = source.contains("varargs") || source.contains("kwargs");
        Head { variadic, depth: 0, parameters: Vec::new(), default: None, moved: Vec::new() }
    }

    fn read(&mut self, token: &Token<'s>, edits: &mut Edits<'s>, (start, end): (usize, usize)) {
        match token {
            Token::Comma | Token::ParenClose if self.depth == 1 => {
                let source = edits.source;
                let moved = self.default.take().filter(|(_, reads)| *reads);
                if let (Some((from, _)), Some(name)) = (moved, self.parameters.last()) {
                    self.moved.push((name, source.get(from..start).unwrap_or_default()));
                    edits.replace((from, start), "undefined_default");
                }
                if matches!(token, Token::ParenClose) {
                    self.depth = 0;
                    if self.variadic {
                        let comma = if self.parameters.is_empty() { "" } else { ", " };
                        edits.replace((start, start), &format!("{comma}varargs=none, kwargs=none"));
                    }
                }
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => self.depth += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                self.depth = self.depth.saturating_sub(1);
            }
            Token::Assign if self.depth == 1 => self.default = Some((end, false)),
            Token::Ident(name) => match &mut self.default {
                Some((_, reads)) => {
                    *reads |= self.parameters.split_last().is_some_and(|(_, before)| before.contains(name));
                }
                None if self.depth == 1 => self.parameters.push(name),
                None => {}
            },
            _ => {}
        }
    }

    /// At the end of the tag: the moved defaults come after it, and the last has its whitespace control.
    fn end(self, edits: &mut Edits, at: (usize, usize)) {
        let close = edits.source.get(at.0..at.1).unwrap_or_default();
        let set =
            |(name, default)| format!("%}}{{% set {name} = ({default}) if {name} is undefined else {name} ");
        if !self.moved.is_empty() {
            let sets: String = self.moved.into_iter().map(set).collect();
            edits.replace(at, &(sets + close));
        }
    }
}
