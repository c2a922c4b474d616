//! What a recorded step did: spans of work, one list per worker. Every backend that can tell tells it in these terms.

/// Which part of an op a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// All of the op, or one of several like parts that workers share out.
    Whole,
    /// Angles of the rows' positions, for every rotation of the step; of no single op.
    Angles,
    /// Serial start of a phase: items counted, rows grouped by expert, rows compacted. No item runs meanwhile.
    Start,
    /// The op's input prepared as its weights need it.
    Input,
    /// Attention: partial results over chunks of positions joined.
    Join,
    /// Routed experts, fused: from gather to partial outputs in one pass.
    Fused,
    /// Routed experts, fused in two launches: from gather to inner activations.
    FusedUp,
    /// Routed experts, fused in two launches: down projections and the weighted sum.
    FusedDown,
    /// Routed experts, unfused: gate and up projections with the activation.
    GateUp,
    /// Routed experts, unfused: inner activations prepared for the down projections.
    Inner,
    /// Routed experts, unfused: the down projections.
    Down,
    /// Routed experts: the weighted sum.
    Combine,
    /// Logits searched for NaN and infinity.
    Check,
}

impl Stage {
    /// A word for it; empty for [`Stage::Whole`].
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Whole => "",
            Stage::Angles => "angles",
            Stage::Start => "start",
            Stage::Input => "input",
            Stage::Join => "join",
            Stage::Fused => "fused",
            Stage::FusedUp => "fused up",
            Stage::FusedDown => "fused down",
            Stage::GateUp => "gate+up",
            Stage::Inner => "inner",
            Stage::Down => "down",
            Stage::Combine => "combine",
            Stage::Check => "check",
        }
    }
}

/// Work of one worker without a break. Spans of one worker are in order and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Phase or launch of the step, counted from 0; numbers may be left out.
    pub phase: u32,
    /// Index into the plan's program; `None` for work that serves many ops.
    pub op: Option<u32>,
    /// Ops it serves, from that one on; more than 1 where a launch does the work of several.
    pub ops: u32,
    /// Which part of it, or of the first.
    pub stage: Stage,
    /// Start, in ns since the step's start.
    pub start: u64,
    /// End, in ns since the step's start.
    pub end: u64,
}

/// A recorded step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Spans of each worker; on a GPU all of it is one, whose spans are launches.
    pub lanes: Vec<Vec<Span>>,
    /// Duration of the step in ns; no span ends later.
    pub ns: u64,
    /// Least difference that the clock tells, in ns, where that is coarse; else 0.
    pub tick_ns: u64,
}

impl Span {
    /// The ops it serves.
    pub fn ops(&self) -> std::ops::Range<usize> {
        self.op.map_or(0..0, |op| op as usize..(op + self.ops) as usize)
    }
}
