//! Which part of the model each weight belongs to, read off the decode program.
use std::fmt;

use crate::{Op, Plan, Step};

/// A part of a model, in the order in which tables show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The embedding table, where it is not also the head.
    Embedding,
    /// Projections and sinks of attention.
    Attention,
    /// From hidden state to the choice of experts.
    Router,
    /// Routed experts.
    Experts,
    /// Experts every token passes.
    Shared,
    /// Dense MLPs.
    Mlp,
    /// The output projection.
    Head,
    /// Norms and anything else.
    Other,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 8] = [
        Part::Embedding,
        Part::Attention,
        Part::Router,
        Part::Experts,
        Part::Shared,
        Part::Mlp,
        Part::Head,
        Part::Other,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Embedding => "embedding",
            Part::Attention => "attention",
            Part::Router => "router",
            Part::Experts => "experts",
            Part::Shared => "shared experts",
            Part::Mlp => "mlp",
            Part::Head => "head",
            Part::Other => "norms, other",
        })
    }
}

/// The part of every weight, by its index in the plan.
pub fn parts(plan: &Plan) -> Vec<Part> {
    let mut parts = vec![Part::Other; plan.weights.len()];
    for (index, step) in plan.program.iter().enumerate() {
        let part = part_of(plan, index, step);
        for id in step.op.weights() {
            // A tied head is read whole for every token, and so counts as head, which comes later.
            parts[id.0] = part;
        }
    }
    parts
}

fn part_of(plan: &Plan, index: usize, step: &Step) -> Part {
    let in_experts_layer = || {
        let layer = plan.program.iter().filter(|other| other.layer == step.layer);
        layer.into_iter().any(|other| matches!(other.op, Op::Experts(_)))
    };
    match &step.op {
        Op::Embed { .. } => Part::Embedding,
        Op::Attention(_) | Op::HeadLinear { .. } => Part::Attention,
        Op::Router { .. } => Part::Router,
        Op::Experts(_) => Part::Experts,
        Op::Linear { .. } if index >= plan.head => Part::Head,
        Op::Linear { x, out, .. } => match (plan.buffer(*out).name, plan.buffer(*x).name) {
            ("router_logits", _) => Part::Router,
            ("q" | "k" | "v", _) | (_, "attended") => Part::Attention,
            ("gate" | "up" | "shared" | "shared_gate", _) if in_experts_layer() => Part::Shared,
            ("gate" | "up", _) | (_, "activated") => Part::Mlp,
            _ => Part::Other,
        },
        _ => Part::Other,
    }
}
