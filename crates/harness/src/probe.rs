//! Reads block inputs and outputs out of a running step.

use amoeba_backend::{Buffers, Flow, Probe};
use amoeba_plan::{BufferId, Op, Plan};

/// A buffer worth reading after some op, under the name fixtures give it.
#[derive(Clone, Debug)]
pub struct Point {
    /// Index of the op in the program.
    pub op: usize,
    /// Layer.
    pub layer: usize,
    /// `out`, `moe.in`, `moe.route` or `moe.out`.
    pub what: &'static str,
    /// What is read.
    pub buffer: BufferId,
    /// Its first so many values.
    pub width: usize,
}

/// Where each layer's output and, for layers with experts, the block's input, route and output can be read.
///
/// A layer's output is the residual stream after the last op of the layer that writes it. The input of a block of experts
/// is what its router reads, unless that has a norm of its own. Its output includes shared experts, but no norm or
/// factor behind it: see [`block_output`].
pub fn points(plan: &Plan) -> Vec<Point> {
    let Some(residual) = plan.buffer_named("residual") else { return Vec::new() };
    let hidden = plan.spec.hidden;
    let mut points: Vec<Point> = Vec::new();
    for (op, step) in plan.program.iter().enumerate() {
        let Some(layer) = step.layer else { continue };
        if let Op::Experts(experts) = &step.op {
            let route = 2 * experts.top_k;
            let (at, buffer) = block_input(plan, op).unwrap_or((op, experts.x));
            points.push(Point { op: at, layer, what: "moe.in", buffer, width: hidden });
            points.push(Point { op, layer, what: "moe.route", buffer: experts.route, width: route });
            let (at, buffer) = block_output(plan, op, experts.out);
            points.push(Point { op: at, layer, what: "moe.out", buffer, width: hidden });
        }
        if step.op.output() == Some(residual) {
            points.retain(|point| (point.layer, point.what) != (layer, "out"));
            points.push(Point { op, layer, what: "out", buffer: residual, width: hidden });
        }
    }
    points
}

/// What the router before the experts at `op` reads, and the op that reads it; `None` if that has a norm of its own.
fn block_input(plan: &Plan, op: usize) -> Option<(usize, BufferId)> {
    let logits = plan.buffer_named("router_logits")?;
    let before = plan.program[..op].iter().enumerate().rev();
    let (at, x) = before.into_iter().find_map(|(at, step)| match &step.op {
        Op::Linear { x, out, .. } if *out == logits => Some((at, *x)),
        _ => None,
    })?;
    (plan.buffer(x).name != "router_in").then_some((at, x))
}

/// The last op that adds a shared expert to the output of the experts at `op`, or the projection behind latent experts,
/// before anything else is made of it; and its buffer.
fn block_output(plan: &Plan, op: usize, out: BufferId) -> (usize, BufferId) {
    let (mut last, mut out) = (op, out);
    for (i, step) in plan.program.iter().enumerate().skip(op + 1) {
        match &step.op {
            Op::Linear { x, out: wide, .. } if *x == out && i == op + 1 => (last, out) = (i, *wide),
            Op::Add { x, y, .. } if *x == out && plan.buffer(*y).name == "shared" => last = i,
            other if step.layer != plan.program[op].layer || uses(other, out) => break,
            _ => {}
        }
    }
    (last, out)
}

/// Whether an op writes a buffer, or reads it as ops behind a block do.
fn uses(op: &Op, buffer: BufferId) -> bool {
    let read = match op {
        Op::Norm(norm) => Some(norm.x),
        Op::Linear { x, .. } | Op::HeadLinear { x, .. } => Some(*x),
        Op::Add { y, .. } => Some(*y),
        Op::Copy { x, .. } => Some(x.buffer),
        Op::Activate { up, .. } => Some(*up),
        _ => None,
    };
    read == Some(buffer) || op.output() == Some(buffer)
}

/// Copies some points of all rows of one step.
pub struct Recorder {
    points: Vec<Point>,
    rows: usize,
    /// Values of each point, row by row.
    pub values: Vec<Vec<f32>>,
}

impl Recorder {
    /// Records `points` for `rows` rows.
    pub fn new(points: Vec<Point>, rows: usize) -> Recorder {
        Recorder { values: vec![Vec::new(); points.len()], points, rows }
    }

    /// What was recorded, with where.
    pub fn into_parts(self) -> impl Iterator<Item = (Point, Vec<f32>)> {
        self.points.into_iter().zip(self.values)
    }
}

impl Probe for Recorder {
    fn wants(&self, op: usize) -> bool {
        self.points.iter().any(|point| point.op == op)
    }

    /// What a layer or a block hands on is there at the end of a launch too.
    fn as_run(&self) -> bool {
        true
    }

    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow {
        for (point, values) in self.points.iter().zip(&mut self.values).filter(|(point, _)| point.op == op) {
            for row in 0..self.rows {
                values.extend_from_slice(&buffers.row(point.buffer, row)[..point.width]);
            }
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amoeba_checkpoint::Checkpoint;
    use amoeba_plan::{NormKind, NormOp, Step};

    /// A plan of one layer's end: experts into `out`, shared ones into it, and `behind`.
    fn plan(behind: &dyn Fn(BufferId, BufferId, BufferId) -> Vec<Op>) -> Plan {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/qwen2_moe-q4g64");
        let mut plan = Plan::of(&Checkpoint::open(&dir).unwrap()).unwrap();
        let [residual, out, other] = ["residual", "branch", "shared"].map(|n| plan.buffer_named(n).unwrap());
        let is_experts = |step: &Step| matches!(step.op, Op::Experts(_));
        let experts = plan.program.iter().find(|step| is_experts(step)).unwrap().clone();
        let shared = Op::Add { x: out, y: other, scale: 1.0, width: 8 };
        let ops = std::iter::once(experts.op).chain([shared]).chain(behind(residual, out, other));
        plan.program = ops.map(|op| Step { layer: Some(0), op }).collect();
        plan
    }

    fn found(plan: &Plan, what: &str) -> Vec<usize> {
        points(plan).iter().filter(|point| point.what == what).map(|point| point.op).collect()
    }

    #[test]
    fn a_block_ends_with_its_shared_experts_whatever_is_made_of_it() {
        let norm = |x, out| {
            let (kind, eps, scale, chunks, dim) = (NormKind::Rms, 1e-6, 1.0, 1, 8);
            let (weight, bias, per_chunk) = (None, None, false);
            Op::Norm(NormOp { kind, weight, bias, per_chunk, eps, scale, chunks, dim, x, out })
        };
        let add = |x, y| Op::Add { x, y, scale: 0.5, width: 8 };
        let scale = |x| Op::Scale { x, scale: 2.0, by: None, softcap: None, width: 8 };
        // Straight into the residual stream; through a norm in place; into another branch, which is scaled.
        let plain = plan(&|residual, out, _| vec![add(residual, out)]);
        let normed = plan(&|residual, out, _| vec![norm(out, out), add(out, residual), add(residual, out)]);
        let joined = plan(&|residual, out, other| {
            vec![add(other, out), add(out, other), add(residual, other), scale(residual)]
        });
        for plan in [&plain, &normed, &joined] {
            assert_eq!(found(plan, "moe.out"), [1], "{plan}");
            assert_eq!(found(plan, "out"), [plan.program.len() - 1], "{plan}");
        }
    }
}
