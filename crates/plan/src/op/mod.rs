//! The operations of a decode program. Each has its contract and reference in `kernels/src/<op>/`.

mod attention;
mod elementwise;
mod experts;
mod product;
mod recurrent;

pub use attention::{AttentionOp, KvAppendOp, RopeOp, TemperatureOp};
pub use elementwise::{ActivateOp, AddOp, CopyOp, HeadGateOp, NormOp, ScaleOp, Strided};
pub use experts::{ExpertWeights, ExpertsOp, RouterOp};
pub use product::{EmbedOp, HeadLinearOp, LinearOp};
pub use recurrent::{ConvOp, DeltaNetOp, SsmOp};

use crate::io::Io;
use crate::program::{BufferId, WeightId};

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A row of a table.
    Embed(EmbedOp),
    /// RMS or layer norm.
    Norm(NormOp),
    /// Product with a matrix.
    Linear(LinearOp),
    /// Product with a matrix per head.
    HeadLinear(HeadLinearOp),
    /// Some elements to another place.
    Copy(CopyOp),
    /// Rotation by the row's position.
    Rope(RopeOp),
    /// Keys and values of the row kept.
    KvAppend(KvAppendOp),
    /// Attention over everything cached up to the row's position.
    Attention(AttentionOp),
    /// Causal convolution.
    Conv(ConvOp),
    /// Gated delta rule.
    DeltaNet(DeltaNetOp),
    /// Selective state space.
    Ssm(SsmOp),
    /// Sharper attention far into a context.
    Temperature(TemperatureOp),
    /// Activation of a gate and an up branch.
    Activate(ActivateOp),
    /// Choice of experts.
    Router(RouterOp),
    /// Routed experts and their weighted sum.
    Experts(ExpertsOp),
    /// A factor per head.
    HeadGate(HeadGateOp),
    /// Sum.
    Add(AddOp),
    /// Factor and soft cap.
    Scale(ScaleOp),
}

/// What an op says of itself.
trait Operation {
    /// As printed.
    fn name(&self) -> &'static str;
    /// What it reads and writes.
    fn io(&self) -> Io;
    /// Its other settings, in a line.
    fn details(&self) -> String;
    /// Whether it is so little work on each row that a row is not cut further.
    fn is_row_work(&self) -> bool;
}

impl Op {
    fn operation(&self) -> &dyn Operation {
        match self {
            Op::Embed(op) => op,
            Op::Norm(op) => op,
            Op::Linear(op) => op,
            Op::HeadLinear(op) => op,
            Op::Copy(op) => op,
            Op::Rope(op) => op,
            Op::KvAppend(op) => op,
            Op::Attention(op) => op,
            Op::Conv(op) => op,
            Op::DeltaNet(op) => op,
            Op::Ssm(op) => op,
            Op::Temperature(op) => op,
            Op::Activate(op) => op,
            Op::Router(op) => op,
            Op::Experts(op) => op,
            Op::HeadGate(op) => op,
            Op::Add(op) => op,
            Op::Scale(op) => op,
        }
    }

    /// Name of the op. It is the folder's name, but for `kv_append` and `copy`, which only move memory,
    /// `head_linear`, which is `linear` per head, and for `head_gate`, `scale` and `temperature`, which are
    /// in `add`.
    pub fn name(&self) -> &'static str {
        self.operation().name()
    }

    /// What the op reads and writes: buffers, caches and weights.
    pub fn io(&self) -> Io {
        self.operation().io()
    }

    /// Settings beyond what it reads and writes, as printed.
    pub fn details(&self) -> String {
        self.operation().details()
    }

    /// Whether it is so little work on each row that a row is not cut further.
    pub fn is_row_work(&self) -> bool {
        self.operation().is_row_work()
    }

    /// The buffer that holds the op's result; `None` if that goes into a cache.
    pub fn output(&self) -> Option<BufferId> {
        self.io().writes.first().map(|region| region.buffer)
    }

    /// Weights the op reads.
    pub fn weights(&self) -> Vec<WeightId> {
        self.io().weights.into_iter().map(|weight| weight.id).collect()
    }
}
