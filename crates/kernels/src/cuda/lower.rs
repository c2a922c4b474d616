//! From ops of the program to launches.

use amoeba_plan::{BufferId, Op, Plan, WeightId};

use super::{Args, Call, Matrix, Place, Places, Setting, Tiling, WeightPlace, Work, fuse};
use crate::{
    activate, attention, conv, delta_net, elementwise, embed, experts, linear, norm, rope, router, ssm,
};

/// Launches that stand for some ops of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// In order.
    pub calls: Vec<Call>,
    /// How many ops, from the one asked for on.
    pub ops: usize,
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

/// Launches of op `index` of the program, perhaps with those after it, for steps of at most `rows` rows.
///
/// # Errors
/// There is no kernel for it.
pub fn lower(plan: &Plan, index: usize, at: &Places, rows: usize) -> Result<Lowered, Unsupported> {
    let site = Site { plan, at, rows, head: index >= plan.head };
    let op = &plan.program[index].op;
    let named = |Unsupported(what)| Unsupported(format!("{}: {what}", op.name()));
    if at.setting.fused
        && let Some(lowered) = fuse::fused(&site, index).map_err(named)?
    {
        return Ok(lowered);
    }
    let calls = calls(&site, op).map_err(named)?;
    Ok(Lowered { calls, ops: 1 })
}

fn calls(site: &Site<'_>, op: &Op) -> Result<Vec<Call>, Unsupported> {
    Ok(match op {
        Op::Embed(op) => vec![embed::cuda::embed(site, op)],
        Op::Norm(op) => vec![norm::cuda::norm(site, op)],
        Op::Linear(op) => linear::cuda::linear(site, op)?,
        Op::HeadLinear(op) => linear::cuda::head_linear(site, op)?,
        Op::Copy(op) => vec![elementwise::cuda::copy(site, op)],
        Op::Rope(op) => vec![rope::cuda::rope(site, op)],
        Op::KvAppend(op) => vec![attention::cuda::append(site, op)],
        Op::Attention(op) => vec![attention::cuda::attention(site, op)],
        Op::Conv(op) => vec![conv::cuda::conv(site, op)],
        Op::DeltaNet(op) => vec![delta_net::cuda::delta_net(site, op)],
        Op::Ssm(op) => vec![ssm::cuda::ssm(site, op)],
        Op::Temperature(op) => vec![elementwise::cuda::temperature(site, op)],
        Op::Activate(op) => vec![activate::cuda::activate(site, op)],
        Op::Router(op) => vec![router::cuda::route(site, op)?],
        Op::Experts(op) => experts::cuda::experts(site, op, (Place::default(), 0.0), None)?,
        Op::HeadGate(op) => vec![elementwise::cuda::head_gate(site, op)],
        Op::Add(op) => vec![elementwise::cuda::add(site, op)],
        Op::Scale(op) => vec![elementwise::cuda::scale(site, op)],
    })
}

/// Moves the rows whose logits are asked for to the front of a buffer, in place.
pub fn compact(plan: &Plan, at: &Places, buffer: BufferId, width: usize) -> Call {
    elementwise::cuda::compact(&Site { plan, at, rows: 1, head: false }, buffer, width)
}

/// Scratch that the ops of a program need for steps of at most `rows` rows.
pub fn scratch_bytes(plan: &Plan, setting: &Setting, rows: usize) -> usize {
    let many = rows > fuse::ROWS_MAX;
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

    /// How a product is cut up for steps of so many rows.
    pub fn tiling(&self, work: Work, rows: usize) -> Result<Tiling, Unsupported> {
        Tiling::new(work, rows, self.at.setting.multiprocessors)
    }

    /// Shared memory to ask for, so that blocks of a launch spread over the device: launches overlap, and blocks are placed wherever
    /// they fit, two on a multiprocessor that is idle for the moment while another gets none. Two blocks that `fill` do not fit one
    /// multiprocessor, one of them and one that does not do, and of the latter no two beside one of the former.
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
