//! From the decode program to phases: stretches of independent items.

use amoeba_kernels::linear::{Arrangement, Digits};
use amoeba_plan::{
    BufferId, Capabilities, ExpertWeights, Group, GroupKind, Op, Part, PathChoice, Plan, RopeId, Sharing,
    Stage, Step, Stored, WeightId, groups,
};

use super::phases::Phase;
use super::phases::attention::{Attention, Join};
use super::phases::experts::{Combine, Down, Inner, Layer, Prepare};
use super::phases::products::Products;
use super::phases::recurrent::Recurrent;
use super::phases::rows::{RowWork, Rows};

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
pub struct Phases {
    /// In order.
    pub phases: Vec<Box<dyn Phase>>,
    /// First phase of the head.
    pub head: usize,
    /// Buffers that the head reads but the layers wrote: compacted to the rows that want logits.
    pub carried: Vec<BufferId>,
    /// Tables of prepared rows.
    pub prepared: Vec<PreparedKey>,
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
    /// Ops that score experts: a wrong choice costs more than the few products would save, so they keep all
    /// digits.
    routers: Vec<bool>,
}

impl Precision {
    /// For a plan whose activations are asked for in that many digits.
    pub fn new(plan: &Plan, digits: Digits) -> Precision {
        let scores = |step: &Step| step.part == Part::Router && matches!(step.op, Op::Linear(_));
        Precision { digits, routers: plan.program.iter().map(scores).collect() }
    }

    /// Of the op at that index of the program.
    pub fn of(&self, op: usize) -> Digits {
        if self.routers[op] { Digits::Three } else { self.digits }
    }
}

/// Compiles the program of `plan` for weights stored like that (in the order of `plan.weights`).
pub fn compile(plan: &Plan, stored: &[Stored], precision: &Precision) -> Phases {
    let mut compiler = Compiler {
        plan,
        stored,
        precision,
        phases: Vec::new(),
        rows: (0..plan.ropes.len()).map(|rope| RowWork::RopeTable(RopeId(rope))).collect(),
        prepared: Vec::new(),
        fresh: Vec::new(),
    };
    let mut head = 0;
    // The phases are the same for all sizes of steps; stages of experts that a step does not have are empty.
    for group in groups(plan, &CAPABILITIES, 1, PathChoice::Auto) {
        if group.ops.start == plan.head {
            compiler.finish_rows();
            head = compiler.phases.len();
            compiler.fresh.clear();
        }
        compiler.group(group);
    }
    compiler.finish_rows();
    let Compiler { phases, prepared, .. } = compiler;
    Phases { phases, head, carried: plan.carried(), prepared }
}

struct Compiler<'a> {
    plan: &'a Plan,
    stored: &'a [Stored],
    precision: &'a Precision,
    phases: Vec<Box<dyn Phase>>,
    /// What the next phase does, of rows.
    rows: Vec<RowWork>,
    prepared: Vec<PreparedKey>,
    /// Tables computed since their buffer was last written.
    fresh: Vec<usize>,
}

impl Compiler<'_> {
    fn group(&mut self, group: Group) {
        let (i, steps) = (group.ops.start, &self.plan.program[group.ops.clone()]);
        for (reader, step) in group.ops.clone().zip(steps) {
            inputs(&step.op).for_each(|(x, weight, cols)| self.need_prepared(reader, x, weight, cols));
        }
        match (&group.kind, &steps[0].op) {
            (GroupKind::Products { .. }, _) => self.push(Products(group)),
            (_, Op::Attention(op)) => {
                let attention = Attention { index: i, op: *op };
                self.push(attention);
                self.push(Join(attention));
            }
            (_, Op::Experts(op)) => {
                let layer = Layer { index: i, op: *op };
                self.push(Inner(layer));
                self.push(Prepare(layer));
                self.push(Down(layer));
                self.push(Combine(layer));
            }
            (_, op) => match Recurrent::new(i, op) {
                Some(recurrent) => self.push(recurrent),
                None => self.rows.extend(group.ops.map(RowWork::Op)),
            },
        }
        for step in steps {
            let (prepared, io) = (&self.prepared, step.op.io());
            self.fresh.retain(|&table| !io.writes_to(prepared[table].x));
        }
    }

    fn push(&mut self, phase: impl Phase + 'static) {
        self.finish_rows();
        self.phases.push(Box::new(phase));
    }

    /// Ends a phase of rows.
    fn finish_rows(&mut self) {
        if !self.rows.is_empty() {
            self.phases.push(Box::new(Rows(std::mem::take(&mut self.rows))));
        }
    }

    /// Makes sure x is prepared as a weight needs it before the next phase, for op `reader`.
    fn need_prepared(&mut self, reader: usize, x: BufferId, weight: WeightId, cols: usize) {
        let format = self.stored[weight.0].format;
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
        self.rows.push(RowWork::Prepare { table, reader });
    }
}

/// Buffers that an op multiplies by weights, with the columns of all heads.
fn inputs(op: &Op) -> impl Iterator<Item = (BufferId, WeightId, usize)> {
    let (first, second) = match op {
        Op::Linear(op) => (Some((op.x, op.weight, op.cols)), None),
        Op::HeadLinear(op) => (Some((op.x, op.weight, op.heads * op.cols)), None),
        Op::Experts(op) => {
            let input = |projection: ExpertWeights| (op.x, projection.stack, op.hidden);
            (op.gate.map(input), Some(input(op.up)))
        }
        _ => (None, None),
    };
    first.into_iter().chain(second)
}
