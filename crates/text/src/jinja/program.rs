//! Compiles a template, with operators that are jinja2's and that pay for what they do.
//!
//! The engine's own operators differ from Python's (no `%` on text, no loop over text) and some do work that
//! no step pays for. A compiled template is a list of instructions for a stack
//! machine; here operators become calls of filters (see `operators.rs`), which take as many values from the
//! stack and leave one.

use std::collections::{BTreeMap, HashSet};

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, eval, parse};
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, Output};

use super::objects::METHODS;
use crate::limits;

/// Shortest text between tags whose length is counted, in bytes; of shorter ones the steps are enough.
const COUNTED: usize = 64;

/// A compiled template.
pub(crate) struct Program<'s> {
    main: Instructions<'s>,
    blocks: BTreeMap<&'s str, Instructions<'s>>,
}

impl<'s> Program<'s> {
    /// Compiles a source that was prepared.
    pub fn compile(source: &'s str) -> Result<Program<'s>, Error> {
        let tree = parse(source, "template", super::syntax()?)?;
        let mut generator = CodeGenerator::new("template", source);
        generator.compile_stmt(&tree);
        let (main, blocks) = generator.finish();
        let blocks = blocks.into_iter().map(|(name, block)| (name, rewrite(&block))).collect();
        Ok(Program { main: rewrite(&main), blocks })
    }

    /// Runs it.
    pub fn run(&self, env: &Environment<'_>, context: Value, out: &mut Output) -> Result<(), Error> {
        eval(env, &self.main, context, &self.blocks, out, AutoEscape::None).map(drop)
    }
}

/// The filter that stands for an instruction, and how many values it takes from the stack.
fn operator(instruction: &Instruction) -> Option<(&'static str, usize)> {
    Some(match instruction {
        Instruction::Add => ("+", 2),
        Instruction::Mul => ("*", 2),
        Instruction::Rem => ("%", 2),
        Instruction::StringConcat => ("~", 2),
        Instruction::Slice => ("[:]", 4),
        Instruction::In => ("in", 2),
        Instruction::Eq => ("==", 2),
        Instruction::Ne => ("!=", 2),
        Instruction::Lt => ("<", 2),
        Instruction::Lte => ("<=", 2),
        Instruction::Gt => (">", 2),
        Instruction::Gte => (">=", 2),
        Instruction::BuildMap(pairs) => ("{}", pairs * 2),
        _ => return None,
    })
}

/// A filter that the top of the stack passes before (`true`) or after an instruction.
fn companion(instruction: &Instruction, constant: bool) -> Option<(&'static str, bool)> {
    match instruction {
        Instruction::PushLoop(_) => Some(("each", true)),
        Instruction::GetItem if !constant => Some(("charged", true)),
        Instruction::CompareAndPreserve(_) => Some(("charged", true)),
        Instruction::BuildMacro(..) => Some(("macro", false)),
        _ => None,
    }
}

fn rewrite<'s>(old: &Instructions<'s>) -> Instructions<'s> {
    let filter = |name, values| Instruction::ApplyFilter(name, u16::try_from(values).ok(), !0);
    let all: Vec<&Instruction<'s>> = (0..).map_while(|at| old.get(at)).collect();
    let mut new: Vec<(Instruction<'s>, u32)> = Vec::with_capacity(all.len());
    let jumps =
        all.iter().filter_map(|&instruction| target(&mut instruction.clone()).map(|to| *to)).collect();
    // Where each old instruction begins in the new list; jumps may go one past the last.
    let mut places = Vec::with_capacity(all.len() + 1);
    for (at, &instruction) in all.iter().enumerate() {
        let constant = key(&all, &jumps, at);
        let line = at as u32;
        places.push(new.len() as u32);
        let companion = companion(instruction, constant.is_some());
        if let Some((name, true)) = companion {
            new.push((filter(name, 1), line));
        }
        let own = match (operator(instruction), instruction) {
            (Some((name, values)), _) if values <= usize::from(u16::MAX) => filter(name, values),
            (_, Instruction::LoadConst(value)) => Instruction::LoadConst(settled(value)),
            // Of a map, `items` is a method first or last: see `objects::METHODS`.
            (_, Instruction::GetAttr(name)) if METHODS.contains(name) => {
                new.push((Instruction::LoadConst(Value::from(*name)), line));
                filter(".method", 2)
            }
            (_, Instruction::CallMethod("changed", Some(values))) => filter("changed", usize::from(*values)),
            (_, Instruction::GetItem) if constant.is_some_and(is_method) => filter("[method]", 2),
            // What is printed as a value is counted.
            (_, Instruction::EmitRaw(text)) if text.len() > COUNTED => {
                new.push((Instruction::LoadConst(Value::from(*text)), line));
                Instruction::Emit
            }
            _ => instruction.clone(),
        };
        new.push((own, line));
        if let Some((name, false)) = companion {
            new.push((filter(name, 1), line));
        }
    }
    places.push(new.len() as u32);
    let mut out = Instructions::new(old.name(), old.source());
    for (mut instruction, line) in new {
        if let Some(to) = target(&mut instruction) {
            *to = places.get(*to as usize).copied().unwrap_or(*to);
        }
        match old.get_line(line).and_then(|line| u16::try_from(line).ok()) {
            Some(line) => out.add_with_line(instruction, line),
            None => out.add(instruction),
        };
    }
    out
}

/// The constant that always lies on the stack when the instruction at `at` begins.
fn key<'c>(all: &[&'c Instruction], jumps: &HashSet<u32>, at: usize) -> Option<&'c Value> {
    match all.get(at.checked_sub(1)?)? {
        Instruction::LoadConst(value) if !jumps.contains(&(at as u32)) => Some(value),
        _ => None,
    }
}

fn is_method(key: &Value) -> bool {
    key.as_str().is_some_and(|name| METHODS.contains(&name))
}

/// Where an instruction may go on.
fn target<'i>(instruction: &'i mut Instruction) -> Option<&'i mut u32> {
    match instruction {
        Instruction::Iterate(to)
        | Instruction::Jump(to)
        | Instruction::JumpIfFalse(to)
        | Instruction::JumpIfFalseOrPop(to)
        | Instruction::JumpIfTrueOrPop(to)
        | Instruction::BuildMacro(_, to, _) => Some(to),
        _ => None,
    }
}

/// Constant sums of lists were left as sums.
fn settled(value: &Value) -> Value {
    match value.kind() {
        ValueKind::Iterable if value.len().is_some_and(|size| size <= limits::LIST_ITEMS) => {
            value.try_iter().map_or_else(|_| value.clone(), Value::from_iter)
        }
        _ => value.clone(),
    }
}
