//! Groups: which ops a device runs together, as one pure pass from program and capabilities to a printable
//! list.
//!
//! A group is what is launched (or shared out among workers) as one piece, in stages. Backends turn groups
//! into work; probes, traces and the gate are handed the same list. Start reading at [`groups`].

mod dependencies;
mod patterns;
mod print;

use std::ops::Range;

use crate::path::select_path;
use crate::{BufferId, NormOp, Op, PathChoice, PathKind, Plan, RopeId, Stage};

pub use print::print_groups;

/// Most rows of a step that count as few: experts run fused, a product keeps all rows of x at hand, attention
/// shares out positions. The one place where this limit is written.
pub const FEW_ROWS_MAX: usize = 8;

/// What a device can run together; data that its backend gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Which ops share.
    pub sharing: Sharing,
    /// Stages of routed experts for few rows.
    pub experts_few: &'static [Stage],
    /// Stages of routed experts for more rows, or where fusing is not wanted.
    pub experts_many: &'static [Stage],
    /// Stages of attention.
    pub attention: &'static [Stage],
    /// Most experts of a choice by logits alone that the launch of the experts makes itself; 0 leaves it to
    /// the router.
    pub choice_max: usize,
    /// Widest head that attention of one row norms, turns and appends by itself; 0 leaves that to launches
    /// before it.
    pub one_row_dim_max: usize,
}

/// Which ops share a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// None: op by op.
    Alone,
    /// Work on single rows runs on, and products that do not depend on each other are shared out together.
    Workers,
    /// Launches do more than one op: a norm with the products of its result, a product with the sum that it
    /// goes into, heads before attention, a router with its experts.
    Launches,
}

/// Ops that run together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Indices into the program.
    pub ops: Range<usize>,
    /// What they are to each other.
    pub kind: GroupKind,
    /// Pieces of work in order, each with the ops that it serves. A device may cut one into several launches.
    pub stages: Vec<StageOps>,
    /// Buffers that the ops one by one would write and the group does not: nothing after the group reads
    /// them.
    pub unwritten: Vec<BufferId>,
    /// Indices of earlier groups that must be done before this one starts, without those that the named ones
    /// wait for.
    pub after: Vec<usize>,
}

/// A stage and the ops that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageOps {
    /// Which part.
    pub stage: Stage,
    /// Indices into the program.
    pub ops: Range<usize>,
}

/// What the ops of a group are to each other.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupKind {
    /// One op as it stands.
    Op,
    /// Work on single rows, op after op.
    Rows,
    /// Products that do not depend on each other.
    Products {
        /// Whether the first op is the norm that makes their input.
        norm: bool,
        /// Whether the last op adds the one product to another buffer.
        add: bool,
    },
    /// Norms and rotations of heads up to where keys and values are appended.
    Heads {
        /// Queries, keys and values, as far as something becomes of them.
        heads: Vec<Heads>,
        /// Whether the last op is the attention of one row.
        attention: bool,
    },
    /// Routed experts.
    Experts {
        /// Whether the first op is their router.
        router: bool,
        /// Whether the last op adds the result to another buffer.
        add: bool,
        /// The way through them.
        path: PathKind,
    },
}

/// What becomes of the heads of a buffer before attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// The buffer.
    pub buffer: BufferId,
    /// Heads in it.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// First a norm of each head.
    pub norm: Option<NormOp>,
    /// Then a rotation, from that element of each head on.
    pub rope: Option<(RopeId, usize)>,
    /// Where they are appended.
    pub append: Append,
}

/// What heads become in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// Nothing: queries.
    Nowhere,
    /// Keys.
    Keys,
    /// Values.
    Values,
}

/// Groups of a program for steps of at most `rows` rows on a device that can do that; `path` is what was
/// asked for of experts. Every op is in one group, in the order of the program; none reaches into the head
/// from before it.
pub fn groups(plan: &Plan, can: &Capabilities, rows: usize, path: PathChoice) -> Vec<Group> {
    let path = select_path(true, rows, FEW_ROWS_MAX, path).kind;
    let search = patterns::Search { can, rows, path };
    let mut groups = Vec::new();
    for part in [0..plan.head, plan.head..plan.program.len()] {
        let mut at = part.start;
        while at < part.end {
            let (kind, count) = search.first(&plan.program[at..part.end]);
            groups.push(group(plan, can, at..at + count, kind));
            at += count;
        }
    }
    dependencies::find(plan, &mut groups);
    groups
}

fn group(plan: &Plan, can: &Capabilities, ops: Range<usize>, kind: GroupKind) -> Group {
    let stages = match &kind {
        GroupKind::Experts { router, path, .. } => {
            let experts = ops.start + usize::from(*router);
            let stages = if *path == PathKind::Fused { can.experts_few } else { can.experts_many };
            let last = stages.len() - 1;
            let of = |(n, &stage): (usize, &Stage)| {
                let start = if n == 0 { ops.start } else { experts };
                let end = if n == last { ops.end } else { experts + 1 };
                StageOps { stage, ops: start..end }
            };
            stages.iter().enumerate().map(of).collect()
        }
        GroupKind::Op if matches!(plan.program[ops.start].op, Op::Attention(_)) => {
            can.attention.iter().map(|&stage| StageOps { stage, ops: ops.clone() }).collect()
        }
        _ => vec![StageOps { stage: Stage::Whole, ops: ops.clone() }],
    };
    let unwritten = match &kind {
        GroupKind::Heads { heads, attention: true } => {
            let changed = |heads: &&Heads| heads.norm.is_some() || heads.rope.is_some();
            heads.iter().filter(changed).map(|heads| heads.buffer).collect()
        }
        _ => Vec::new(),
    };
    Group { ops, kind, stages, unwritten, after: Vec::new() }
}

impl Capabilities {
    /// Op by op, as the reference runs.
    pub const ALONE: Capabilities = Capabilities {
        sharing: Sharing::Alone,
        experts_few: &[Stage::Whole],
        experts_many: &[Stage::Whole],
        attention: &[Stage::Whole],
        choice_max: 0,
        one_row_dim_max: 0,
    };
}

impl Group {
    /// The ops that the first launch of that stage serves.
    pub fn ops_of(&self, stage: Stage) -> Range<usize> {
        let found = self.stages.iter().find(|known| known.stage == stage);
        found.map_or_else(|| self.ops.clone(), |known| known.ops.clone())
    }
}
