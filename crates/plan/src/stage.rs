//! Stages: which part of an op, or of ops that run together, a piece of work is.

/// Which part of an op a piece of work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// All of the op, or one of several like parts that workers share out.
    Whole,
    /// Angles of the rows' positions, for every rotation of the step; of no single op.
    Angles,
    /// Serial start of a phase: items counted, rows grouped by expert, rows compacted. No item runs
    /// meanwhile.
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
