//! From groups of ops to launches.

use amoeba_plan::{
    BufferId, Capabilities, FEW_ROWS_MAX, Group, GroupKind, Heads, Op, PathKind, Plan, Sharing, Stage, Step,
    WeightId,
};

use super::{Args, Call, Matrix, Place, Places, Setting, WeightPlace};
use crate::cuda::{Tiling, Work};
use crate::linear::cuda::Product;
use crate::{attention, elementwise, experts, linear};

/// A launch and which part of its group it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    /// Which part.
    pub stage: Stage,
    /// The launch.
    pub call: Call,
}

impl Staged {
    fn whole(calls: Vec<Call>) -> Vec<Staged> {
        calls.into_iter().map(|call| Staged { stage: Stage::Whole, call }).collect()
    }
}

/// Why an op cannot run on a CUDA device: its name and what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

/// What launches can do together; nothing unless `fused`.
pub const fn capabilities(fused: bool) -> Capabilities {
    Capabilities {
        sharing: if fused { Sharing::Launches } else { Sharing::Alone },
        experts_few: &[Stage::FusedUp, Stage::FusedDown],
        experts_many: &[Stage::Start, Stage::GateUp, Stage::Inner, Stage::Down, Stage::Combine],
        attention: &[Stage::Whole],
        choice_max: experts::cuda::CHOICE_MAX,
        one_row_dim_max: attention::cuda::ONE_DIM_MAX,
    }
}

/// Launches of a group of [`capabilities`], for steps of at most `rows` rows.
///
/// # Errors
/// There is no kernel for it.
pub fn lower(plan: &Plan, group: &Group, at: &Places, rows: usize) -> Result<Vec<Staged>, Unsupported> {
    let ops = &plan.program[group.ops.clone()];
    let mut site = Site { plan, at, rows, head: group.ops.start >= plan.head };
    let lowered = match &group.kind {
        GroupKind::Op => crate::launches(&site, &ops[0].op).map(Staged::whole),
        GroupKind::Products { .. } => products(&site, ops).map(Staged::whole),
        GroupKind::Heads { heads, .. } => heads_of(&site, heads, ops).map(Staged::whole),
        GroupKind::Experts { path, .. } => {
            if *path == PathKind::Unfused {
                // Launches for more rows serve fewer too.
                site.rows = rows.max(FEW_ROWS_MAX + 1);
            }
            experts_of(&site, ops)
        }
        GroupKind::Rows => Err(Unsupported("work on rows one after the other is no launch".to_owned())),
    };
    lowered.map_err(|Unsupported(what)| Unsupported(format!("{}: {what}", ops[0].op.name())))
}

/// Products, perhaps with the norm before or the sum after.
fn products(site: &Site<'_>, ops: &[Step]) -> Result<Vec<Call>, Unsupported> {
    let (mut norm, mut products, mut x) = (None, Vec::new(), None);
    for step in ops {
        match &step.op {
            Op::Norm(op) => norm = Some(op),
            Op::Linear(op) => {
                x = Some(op.x);
                products.push(Product::new(site, op));
            }
            Op::Add(op) => products.iter_mut().for_each(|one| one.add = (site.buffer(op.x), op.scale)),
            other => return Err(misplaced(other)),
        }
    }
    let x = x.ok_or_else(|| Unsupported("a group of products without one".to_owned()))?;
    linear::cuda::products(site, x, &products, norm)
}

/// Heads before attention, perhaps with the attention of one row.
fn heads_of(site: &Site<'_>, heads: &[Heads], ops: &[Step]) -> Result<Vec<Call>, Unsupported> {
    let last = ops.last().map(|step| &step.op);
    match (last, <&[Heads; 3]>::try_from(heads)) {
        (Some(Op::Attention(op)), Ok(heads)) => Ok(vec![attention::cuda::one(site, op, heads)]),
        (Some(Op::KvAppend(op)), _) => Ok(vec![attention::cuda::heads(site, op.cache, heads)]),
        (Some(other), _) => Err(misplaced(other)),
        (None, _) => Ok(Vec::new()),
    }
}

/// Experts, perhaps with the router before or the sum after.
fn experts_of(site: &Site<'_>, ops: &[Step]) -> Result<Vec<Staged>, Unsupported> {
    let (mut router, mut experts, mut add) = (None, None, (Place::default(), 0.0));
    for step in ops {
        match &step.op {
            Op::Router(op) => router = Some(op),
            Op::Experts(op) => experts = Some(op),
            Op::Add(op) => add = (site.buffer(op.x), op.scale),
            other => return Err(misplaced(other)),
        }
    }
    let experts = experts.ok_or_else(|| Unsupported("a group of experts without them".to_owned()))?;
    experts::cuda::experts(site, experts, add, router)
}

pub(crate) fn misplaced(op: &Op) -> Unsupported {
    Unsupported(format!("{} in a group of another kind", op.name()))
}

/// Moves the rows whose logits are asked for to the front of a buffer, in place.
pub fn compact(plan: &Plan, at: &Places, buffer: BufferId, width: usize) -> Call {
    elementwise::cuda::compact(&Site { plan, at, rows: 1, head: false }, buffer, width)
}

/// Scratch that the ops of a program need for steps of at most `rows` rows.
pub fn scratch_bytes(plan: &Plan, setting: &Setting, rows: usize) -> usize {
    let many = rows > FEW_ROWS_MAX;
    let of = |op: &Op| match op {
        Op::Linear(op) if many => linear::gemm::scratch_bytes(1, op.cols, setting, rows),
        Op::HeadLinear(op) if many => linear::gemm::scratch_bytes(op.heads, op.cols, setting, rows),
        Op::Attention(op) => attention::cuda::scratch_bytes(op, setting, rows),
        Op::Experts(op) => experts::cuda::scratch_bytes(op, setting, rows),
        _ => 0,
    };
    plan.program.iter().map(|step| of(&step.op)).max().unwrap_or(0)
}

/// What an op is lowered for.
pub(crate) struct Site<'a> {
    pub plan: &'a Plan,
    pub at: &'a Places,
    /// Most rows of a step.
    pub rows: usize,
    /// Whether it runs for the rows only whose logits are asked for.
    pub head: bool,
}

impl Site<'_> {
    /// Address of the number of rows.
    pub fn count(&self) -> u64 {
        self.at.step + if self.head { 4 } else { 0 }
    }

    /// How a product is cut up for steps of `rows` rows.
    pub fn tiling(&self, work: Work, rows: usize) -> Result<Tiling, Unsupported> {
        Tiling::new(work, rows, self.at.setting.multiprocessors)
    }

    /// Shared memory to ask for, so that blocks of a launch spread over the device: launches overlap, and
    /// blocks are placed wherever they fit, two on a multiprocessor that is idle for the moment while another
    /// gets none. What may share one, by the number of blocks that fill the device (`fill`) and of plain
    /// ones:
    ///
    /// | fill | plain | fits |
    /// |---|---|---|
    /// | 2 | 0 | no |
    /// | 1 | 1 | yes |
    /// | 1 | 2 | no |
    pub fn spread(&self, shared: usize, fill: bool) -> u32 {
        let least = match (self.at.setting.arch, fill) {
            (90 | 100 | 103, true) => 66 << 10, // of 132 KiB, one of which goes with each block
            (90 | 100 | 103, false) => 33 << 10,
            _ => 0,
        };
        shared.max(least) as u32
    }

    pub fn buffer(&self, id: BufferId) -> Place {
        self.at.buffers[id.0]
    }

    /// The buffer, or a null address.
    pub fn buffer_or_null(&self, id: Option<BufferId>) -> Place {
        id.map_or(Place::default(), |id| self.buffer(id))
    }

    /// Address of a vector, or null.
    pub fn vector(&self, id: Option<WeightId>) -> u64 {
        id.map_or(0, |id| match self.at.weights[id.0] {
            WeightPlace::Vector(address) => address,
            WeightPlace::Matrix(_) => unreachable!("weight {} is used as a vector", id.0),
        })
    }

    pub fn matrix(&self, id: WeightId) -> Matrix {
        match self.at.weights[id.0] {
            WeightPlace::Matrix(matrix) => matrix,
            WeightPlace::Vector(_) => unreachable!("weight {} is used as a matrix", id.0),
        }
    }
}

impl Args {
    /// A matrix: addresses of codes, scales, biases.
    #[must_use]
    pub(crate) fn matrix(self, matrix: &Matrix) -> Args {
        self.address(matrix.codes).address(matrix.scales).address(matrix.biases)
    }
}
