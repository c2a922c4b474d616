//! Parts of a model: what each step serves, and what the weights that it reads count as.

use std::fmt;

use crate::Plan;

/// A part of a model, in the order in which tables show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The embedding table, where it is not also the head.
    Embedding,
    /// Projections and sinks of attention.
    Attention,
    /// Delta nets, state spaces, convolutions.
    Recurrent,
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
    #[default]
    Other,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Embedding => "embedding",
            Part::Attention => "attention",
            Part::Recurrent => "recurrent",
            Part::Router => "router",
            Part::Experts => "experts",
            Part::Shared => "shared experts",
            Part::Mlp => "mlp",
            Part::Head => "head",
            Part::Other => "norms, other",
        })
    }
}

/// The part of every weight, by its index in the plan: that of the last step which reads it. A tied head is
/// read whole for every token, and so counts as head, which comes later.
pub fn parts(plan: &Plan) -> Vec<Part> {
    let mut parts = vec![Part::Other; plan.weights.len()];
    for step in &plan.program {
        for id in step.op.weights() {
            parts[id.0] = step.part;
        }
    }
    parts
}
