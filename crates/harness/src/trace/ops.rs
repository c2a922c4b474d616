//! The decode program as a trace shows it: a name for every op, the bytes it reads.

use amoeba_backend::{KvType, Span, Stage};
use amoeba_plan::{HeadLinearOp, LinearOp, Op, Part, WeightId, Window};

use crate::bench::BenchModel;

/// One op of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedOp {
    /// Kind of op.
    pub name: &'static str,
    /// As a person would call it: `q_proj`, `norm`, `lm_head`.
    pub label: String,
    /// Layer; `None` before the first and after the last.
    pub layer: Option<usize>,
    /// Part of the model it serves.
    pub part: Part,
    /// Bytes of stored weights that one token reads.
    pub weight_bytes: f64,
    /// Those of the down projections of routed experts, included above.
    pub down_bytes: f64,
    /// Bytes of keys and values read per visible position.
    pub kv_bytes: f64,
    /// Which of the positions are visible.
    pub window: Option<Window>,
    /// Routed experts: the op that chooses them.
    pub router: Option<usize>,
}

impl TracedOp {
    /// Bytes that a stage of the op reads for a token which sees `positions` positions.
    pub fn bytes(&self, stage: Stage, positions: usize) -> f64 {
        let seen = visible(positions as f64, self.window);
        match stage {
            Stage::Whole => self.weight_bytes + self.kv_bytes * seen,
            Stage::Fused => self.weight_bytes,
            Stage::GateUp | Stage::FusedUp => self.weight_bytes - self.down_bytes,
            Stage::Down | Stage::FusedDown => self.down_bytes,
            _ => 0.0,
        }
    }

    /// Bytes of a whole token.
    pub fn all_bytes(&self, positions: usize) -> f64 {
        self.bytes(Stage::Whole, positions)
    }
}

/// How many of `positions` cached positions the last one attends to.
pub fn visible(positions: f64, window: Option<Window>) -> f64 {
    match window {
        None => positions,
        Some(Window::Sliding(width)) => positions.min(width as f64),
        Some(Window::Chunk(width)) => {
            let width = width as f64;
            positions - ((positions - 1.0).max(0.0) / width).floor() * width
        }
    }
}

/// Name of a row of the table that a span belongs to. Work that only exists because workers share is in
/// brackets; a launch that does the work of several ops is named after all of them, each name once.
pub fn row_label(ops: &[TracedOp], span: &Span) -> String {
    let ops = &ops[span.ops()];
    if ops.is_empty() || serves_others(span.stage) {
        return format!("({})", span.stage.name());
    }
    let staged = staged(ops);
    let mut names: Vec<String> = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        let name = match span.stage {
            stage if at == staged && stage != Stage::Whole => format!("{} {}", op.label, stage.name()),
            _ => op.label.clone(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join("+")
}

/// Of a span's ops the one that its stage is of: routed experts, if they are among them, else the first.
fn staged(ops: &[TracedOp]) -> usize {
    ops.iter().position(|op| op.router.is_some()).unwrap_or(0)
}

/// Whether work of the stage only exists because workers share.
fn serves_others(stage: Stage) -> bool {
    matches!(stage, Stage::Start | Stage::Input | Stage::Check | Stage::Angles)
}

/// Bytes that a span's ops read for a token which sees `positions` positions.
pub fn span_bytes(ops: &[TracedOp], span: &Span, positions: usize) -> f64 {
    let ops = &ops[span.ops()];
    let staged = staged(ops);
    let stage = |at: usize| if at == staged { span.stage } else { Stage::Whole };
    ops.iter().enumerate().map(|(at, op)| op.bytes(stage(at), positions)).sum()
}

/// Of a span's ops the one that reads most.
pub fn main_op<'a>(ops: &'a [TracedOp], span: &Span) -> Option<&'a TracedOp> {
    ops[span.ops()].iter().reduce(|most, op| if op.weight_bytes > most.weight_bytes { op } else { most })
}

/// All ops of a model.
pub fn traced_ops(model: &BenchModel, kv: KvType) -> Vec<TracedOp> {
    let plan = model.plan();
    let read = |id: WeightId| model.stored()[id.0].bytes as f64 * plan.share_read_per_token(id);
    let tied = |id: WeightId| model.parts()[id.0] == Part::Head;
    let element = if kv == KvType::F16 { 2 } else { 4 };
    let of = |(index, step): (usize, &amoeba_plan::Step)| {
        let label = match &step.op {
            Op::Linear(_) if step.part == Part::Head => "lm_head",
            Op::Linear(_) if step.part == Part::Router => "router_logits",
            Op::Linear(LinearOp { weight, .. }) | Op::HeadLinear(HeadLinearOp { weight, .. }) => {
                plan.weight(*weight).path.rsplit('.').next().unwrap_or("linear")
            }
            op => op.name(),
        };
        let (kv_bytes, window) = match &step.op {
            Op::Attention(op) => {
                ((plan.caches[op.cache.0].kind.elements_per_position() * element) as f64, op.window)
            }
            _ => (0.0, None),
        };
        // A tied table is read whole by the head; the row that is embedded is part of that.
        let embeds_tied = |id: &WeightId| matches!(step.op, Op::Embed(_)) && tied(*id);
        let weights = step.op.weights().into_iter().filter(|id| !embeds_tied(id));
        TracedOp {
            name: step.op.name(),
            label: label.to_owned(),
            layer: step.layer,
            part: step.part,
            weight_bytes: weights.map(read).sum(),
            down_bytes: if let Op::Experts(op) = &step.op { read(op.down.stack) } else { 0.0 },
            kv_bytes,
            window,
            router: plan.routed(index).map(|(_, routed)| routed.router),
        }
    };
    plan.program.iter().enumerate().map(of).collect()
}
