//! Groups as text: what `inspect --plan --device …` prints.

use std::fmt::Write;

use super::{Group, GroupKind};
use crate::{Plan, Stage};

/// A line per group: its index and ops, what they are, its stages if there are several, what it waits for,
/// and what it leaves unwritten.
pub fn print_groups(plan: &Plan, groups: &[Group]) -> String {
    let mut text = String::new();
    let mut layer = None;
    for (n, group) in groups.iter().enumerate() {
        let first = &plan.program[group.ops.start];
        if first.layer != layer || n == 0 || group.ops.start == plan.head {
            layer = first.layer;
            text += &match layer {
                Some(layer) => format!("layer {layer}\n"),
                None => format!("{}\n", if n == 0 { "embed" } else { "head" }),
            };
        }
        let ops = format!("{}..{}", group.ops.start, group.ops.end);
        let after: Vec<String> = group.after.iter().map(usize::to_string).collect();
        let line = format!("{n:5}  {ops:11} after {:9} {}", after.join(","), describe(plan, group));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn describe(plan: &Plan, group: &Group) -> String {
    let mut names: Vec<(&str, usize)> = Vec::new();
    for step in &plan.program[group.ops.clone()] {
        match names.last_mut() {
            Some((name, count)) if *name == step.op.name() => *count += 1,
            _ => names.push((step.op.name(), 1)),
        }
    }
    let name = |(name, count): &(&str, usize)| match count {
        1 => (*name).to_owned(),
        count => format!("{count} {name}"),
    };
    let mut text = names.iter().map(name).collect::<Vec<_>>().join(" + ");
    if let GroupKind::Experts { path, .. } = &group.kind {
        text += &format!(", {path}");
    }
    let stages: Vec<&str> = group.stages.iter().map(|known| known.stage).map(word).collect();
    if stages.len() > 1 {
        text += &format!(": {}", stages.join(", "));
    }
    if !group.unwritten.is_empty() {
        text += &format!("; leaves {} unwritten", plan.names(&group.unwritten));
    }
    text
}

fn word(stage: Stage) -> &'static str {
    if stage == Stage::Whole { "parts" } else { stage.name() }
}
