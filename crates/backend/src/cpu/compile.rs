//! From the decode program to phases: stretches of independent items.

use std::ops::Range;

use amoeba_checkpoint::Format;
use amoeba_kernels::linear::{Arrangement, Digits};
use amoeba_plan::{
    BufferId, Capabilities, Group, GroupKind, HeadLinearOp, LinearOp, Op, Part, PathChoice, Plan, RopeId,
    Sharing, Stage, Step, groups,
};

use super::weights::Weights;

/// Work that ends before the next phase starts.
#[derive(Debug, PartialEq)]
pub enum Phase {
    /// Each row on one worker.
    Rows(Vec<RowWork>),
    /// Products that do not depend on each other, cut into blocks of outputs. Indices into the program.
    Linears(Vec<usize>),
    /// Attention, cut by rows, key/value head and, for a few rows, positions.
    Attention(usize),
    /// The parts of attention joined; nothing to do if positions were not shared out.
    AttentionJoin(usize),
    /// An op that carries a state, cut by sequence and channels.
    Recurrent(usize),
    /// Grouping of rows by expert, then all expert items (fused) or gate, up and activation (unfused).
    ExpertItems(usize),
    /// Unfused: the inner activations prepared for the down projections.
    PrepareInner(usize),
    /// Unfused: the down projections.
    ExpertDown(usize),
    /// The weighted sum over experts.
    Combine(usize),
}

/// Work on one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowWork {
    /// An op of the program.
    Op(usize),
    /// cos and sin of the row's position.
    RopeTable(RopeId),
    /// A buffer prepared for the matrices that multiply it.
    Prepare {
        /// Index of the table it goes into.
        table: usize,
        /// First op that needs it.
        reader: usize,
    },
}

/// x prepared as the matrices that multiply it need it: once per row, not per output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreparedKey {
    /// The buffer.
    pub x: BufferId,
    /// How.
    pub arrangement: Arrangement,
    /// Columns, those of all heads.
    pub cols: usize,
}

/// A compiled program.
#[derive(Debug)]
pub struct Phases {
    /// In order.
    pub phases: Vec<Phase>,
    /// First phase of the head.
    pub head: usize,
    /// Buffers that the head reads but the layers wrote: compacted to the rows that want logits.
    pub carried: Vec<BufferId>,
    /// Tables of prepared rows.
    pub prepared: Vec<PreparedKey>,
    /// What the phases run together, for probes.
    pub groups: Vec<Group>,
}

/// What workers share out together.
pub const CAPABILITIES: Capabilities = Capabilities {
    sharing: Sharing::Workers,
    experts_few: &[Stage::Fused, Stage::Combine],
    experts_many: &[Stage::GateUp, Stage::Inner, Stage::Down, Stage::Combine],
    attention: &[Stage::Whole, Stage::Join],
    choice_max: 0,
    one_row_dim_max: 0,
};

/// Digits of x by the op that multiplies it.
#[derive(Debug)]
pub struct Precision {
    /// Of all products but those of routers, and of the inner activations of experts.
    pub digits: Digits,
    /// Ops that score experts: a wrong choice costs more than the few products would save, so they keep all digits.
    routers: Vec<bool>,
}

impl Precision {
    /// For a plan whose activations are asked for in so many digits.
    pub fn new(plan: &Plan, digits: Digits) -> Precision {
        let scores = |step: &Step| step.part == Part::Router && matches!(step.op, Op::Linear(_));
        Precision { digits, routers: plan.program.iter().map(scores).collect() }
    }

    /// Of the op at that index of the program.
    pub fn of(&self, op: usize) -> Digits {
        if self.routers[op] { Digits::Three } else { self.digits }
    }
}

/// Compiles the program of `plan` for weights stored as in `weights`.
pub fn compile(plan: &Plan, weights: &Weights, precision: &Precision) -> Phases {
    let mut compiler =
        Compiler { plan, precision, phases: Vec::new(), prepared: Vec::new(), fresh: Vec::new() };
    for rope in 0..plan.ropes.len() {
        compiler.push_row(RowWork::RopeTable(RopeId(rope)));
    }
    // A phase does for all sizes of steps: only the stages of experts differ, and those that a step has not are empty.
    let groups = groups(plan, &CAPABILITIES, 1, PathChoice::Auto);
    let mut head = 0;
    for group in &groups {
        if group.ops.start == plan.head {
            head = compiler.phases.len();
            compiler.fresh.clear();
        }
        compiler.group(group, weights, group.ops.start == plan.head);
    }
    let Compiler { phases, prepared, .. } = compiler;
    Phases { phases, head, carried: plan.carried(), prepared, groups }
}

struct Compiler<'a> {
    plan: &'a Plan,
    precision: &'a Precision,
    phases: Vec<Phase>,
    prepared: Vec<PreparedKey>,
    /// Tables computed since their buffer was last written.
    fresh: Vec<usize>,
}

impl Compiler<'_> {
    fn group(&mut self, group: &Group, weights: &Weights, first_of_head: bool) {
        let i = group.ops.start;
        match (&group.kind, &self.plan.program[i].op) {
            (GroupKind::Products { .. }, _) => self.products(group.ops.clone(), weights),
            (_, Op::Attention(_)) => self.phases.extend([Phase::Attention(i), Phase::AttentionJoin(i)]),
            (_, Op::Conv(_) | Op::DeltaNet(_) | Op::Ssm(_)) => self.phases.push(Phase::Recurrent(i)),
            (_, Op::Experts(experts)) => {
                let bank = weights.bank(i);
                for projection in bank.gate.iter().chain([&bank.up]) {
                    let layout = *projection.weights.layout();
                    self.need_prepared(i, experts.x, layout.format, layout.cols);
                }
                let of = [Phase::ExpertItems, Phase::PrepareInner, Phase::ExpertDown, Phase::Combine];
                self.phases.extend(of.map(|phase| phase(i)));
            }
            _ => {
                if first_of_head {
                    self.phases.push(Phase::Rows(Vec::new()));
                }
                group.ops.clone().for_each(|op| self.push_row(RowWork::Op(op)));
            }
        }
        for step in &self.plan.program[group.ops.clone()] {
            let (prepared, io) = (&self.prepared, step.op.io());
            self.fresh.retain(|&table| !io.writes_to(prepared[table].x));
        }
    }

    /// Products that do not depend on each other, in one phase after what prepares their inputs.
    fn products(&mut self, ops: Range<usize>, weights: &Weights) {
        for i in ops.clone() {
            let op = &self.plan.program[i].op;
            if let Op::Linear(LinearOp { weight, x, .. }) | Op::HeadLinear(HeadLinearOp { weight, x, .. }) =
                op
            {
                let layout = *weights.matrix(*weight).layout();
                self.need_prepared(i, *x, layout.format, heads(op) * layout.cols);
            }
        }
        self.phases.push(Phase::Linears(ops.collect()));
    }

    fn push_row(&mut self, work: RowWork) {
        match self.phases.last_mut() {
            Some(Phase::Rows(rows)) => rows.push(work),
            _ => self.phases.push(Phase::Rows(vec![work])),
        }
    }

    /// Makes sure x is prepared as a format needs it before the next phase, for op `reader`.
    fn need_prepared(&mut self, reader: usize, x: BufferId, format: Format, cols: usize) {
        let Some(arrangement) = Arrangement::of(format, self.precision.of(reader)) else { return };
        let key = PreparedKey { x, arrangement, cols };
        let table = self.prepared.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.prepared.push(key);
            self.prepared.len() - 1
        });
        if self.fresh.contains(&table) {
            return;
        }
        self.fresh.push(table);
        self.push_row(RowWork::Prepare { table, reader });
    }
}

/// Products side by side that an op is.
pub fn heads(op: &Op) -> usize {
    if let Op::HeadLinear(op) = op { op.heads } else { 1 }
}
