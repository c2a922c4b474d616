//! The choice of experts, and experts.

use super::Operation;
use crate::io::Io;
use crate::program::{BufferId, WeightId, WeightShape};
use crate::spec::{Activation, RouterRule};

/// From router logits to `[k indices as f32, k weights]`, indices ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterOp {
    /// Logits `[experts]`.
    pub logits: BufferId,
    /// `[2·top_k]`, a [`BufferKind::Route`](crate::BufferKind::Route).
    pub out: BufferId,
    /// Number of experts.
    pub experts: usize,
    /// The rule.
    pub rule: RouterRule,
    /// Bias on the choice, `[experts]`.
    pub correction: Option<WeightId>,
    /// Factor on the weight of each expert, `[experts]`.
    pub per_expert: Option<WeightId>,
    /// Where the one picked weight goes if it is to scale the experts' input; their own weight is then 1.
    /// `[1]`.
    pub input_gate: Option<BufferId>,
}

impl Operation for RouterOp {
    fn name(&self) -> &'static str {
        "router"
    }

    fn io(&self) -> Io {
        let io = Io::default().read(self.logits, self.experts).write(self.out, 2 * self.rule.top_k);
        let io = io.vector(self.correction, self.experts).vector(self.per_expert, self.experts);
        match self.input_gate {
            Some(gate) => io.write(gate, 1),
            None => io,
        }
    }

    fn details(&self) -> String {
        let normalised = if self.rule.normalise.is_some() { ", normalised" } else { "" };
        format!("{:?} top {}{normalised}", self.rule.score, self.rule.top_k)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// One projection of all experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertWeights {
    /// `[experts, out, in]`.
    pub stack: WeightId,
    /// `[experts, out]`.
    pub bias: Option<WeightId>,
}

/// Routed experts: `out = Σ_k weight_k · down_k(act(gate_k·x, up_k·x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertsOp {
    /// Input `[hidden]`.
    pub x: BufferId,
    /// Choice from [`Op::Router`](crate::Op::Router).
    pub route: BufferId,
    /// Output `[hidden]`.
    pub out: BufferId,
    /// Number of experts.
    pub experts: usize,
    /// Experts per token.
    pub top_k: usize,
    /// Width in and out.
    pub hidden: usize,
    /// Inner width.
    pub d_ff: usize,
    /// Activation.
    pub activation: Activation,
    /// Gate projections, if the activation has them.
    pub gate: Option<ExpertWeights>,
    /// Up projections.
    pub up: ExpertWeights,
    /// Down projections.
    pub down: ExpertWeights,
}

impl Operation for ExpertsOp {
    fn name(&self) -> &'static str {
        "experts"
    }

    fn io(&self) -> Io {
        let share = self.top_k as f64 / self.experts as f64;
        let mut io = Io::default().read(self.x, self.hidden).read(self.route, 2 * self.top_k);
        io = io.write(self.out, self.hidden);
        let inner = self.gate.into_iter().chain([self.up]).map(|weights| (weights, self.d_ff, self.hidden));
        for (weights, rows, cols) in inner.chain([(self.down, self.hidden, self.d_ff)]) {
            io = io.share_of(share, weights.stack, WeightShape::Stack(self.experts, rows, cols));
            if let Some(bias) = weights.bias {
                io = io.share_of(share, bias, WeightShape::Vector(self.experts * rows));
            }
        }
        io
    }

    fn details(&self) -> String {
        format!("{} of {} × {}, {:?}", self.top_k, self.experts, self.d_ff, self.activation)
    }

    fn is_row_work(&self) -> bool {
        false
    }
}
