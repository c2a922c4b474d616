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
    Other,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 9] = [
        Part::Embedding,
        Part::Attention,
        Part::Recurrent,
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

/// Buffers between the projections of a mixer, by what reads or writes them.
const ATTENTION: [&str; 15] = [
    "q",
    "k",
    "v",
    "qkv",
    "q_and_gate",
    "attention_gate",
    "attended",
    "q_low",
    "kv_a",
    "kv",
    "latent",
    "q_nope",
    "attended_latent",
    "k_lent",
    "v_lent",
];
const RECURRENT: [&str; 15] = [
    "conv_in",
    "z",
    "beta",
    "decay",
    "qkvz",
    "ba",
    "delta_out",
    "mamba_in",
    "ssm_out",
    "conv_bcx",
    "decay_low",
    "z_low",
    "dt",
    "selected",
    "dt_low",
];
const SHARED: [&str; 3] = ["shared", "shared_gate", "mix_logits"];

fn part_of(plan: &Plan, index: usize, step: &Step) -> Part {
    match &step.op {
        Op::Embed { .. } => Part::Embedding,
        Op::Attention(_) | Op::HeadLinear { .. } => Part::Attention,
        Op::Conv(_) | Op::DeltaNet(_) | Op::Ssm(_) => Part::Recurrent,
        Op::Router { .. } => Part::Router,
        Op::Experts(_) => Part::Experts,
        Op::Linear { .. } if index >= plan.head => Part::Head,
        Op::Linear { x, out, .. } => {
            let [x, out] = [x, out].map(|id| plan.buffer(*id).name);
            let either = |names: &[&str]| names.contains(&x) || names.contains(&out);
            match () {
                () if out == "router_logits" => Part::Router,
                () if either(&ATTENTION) => Part::Attention,
                // A short convolution's result goes into the output projection.
                () if either(&RECURRENT) || x == "conv_out" => Part::Recurrent,
                () if either(&["experts_in", "experts_out"]) => Part::Experts,
                () if either(&SHARED) && in_experts_layer(plan, step) => Part::Shared,
                () if either(&["gate", "up", "activated", "gate_and_up"]) => match mlp_of(plan, index) {
                    Some("shared") => Part::Shared,
                    _ => Part::Mlp,
                },
                () => Part::Other,
            }
        }
        _ => Part::Other,
    }
}

fn in_experts_layer(plan: &Plan, step: &Step) -> bool {
    plan.program.iter().any(|other| other.layer == step.layer && matches!(other.op, Op::Experts(_)))
}

/// Where the MLP that the product at `index` is a part of puts its result: the next product of "activated".
fn mlp_of(plan: &Plan, index: usize) -> Option<&'static str> {
    plan.program[index..].iter().find_map(|step| match &step.op {
        Op::Linear { x, out, .. } if plan.buffer(*x).name == "activated" => Some(plan.buffer(*out).name),
        _ => None,
    })
}
