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
    /// How many of its values are read, from the first on.
    pub width: usize,
}

/// Where each layer's output and, for layers with experts, the block's input, route and output can be read.
///
/// A layer's output is the residual stream after the last op of the layer that writes it. The input of a
/// block of experts is what its router reads, unless that has a norm of its own. Its output includes shared
/// experts, but no norm or factor after them.
pub fn points(plan: &Plan) -> Vec<Point> {
    let hidden = plan.spec.hidden;
    let mut points: Vec<Point> = Vec::new();
    for (op, step) in plan.program.iter().enumerate() {
        let Some(layer) = step.layer else { continue };
        if let (Op::Experts(experts), Some((block, routed))) = (&step.op, plan.routed(op)) {
            let (at, buffer) = match &plan.program[routed.scores].op {
                Op::Linear(scores) if !routed.own_norm => (routed.scores, scores.x),
                _ => (op, experts.x),
            };
            points.push(Point { op: at, layer, what: "moe.in", buffer, width: hidden });
            let (buffer, width) = (experts.route, 2 * experts.top_k);
            points.push(Point { op, layer, what: "moe.route", buffer, width });
            let (op, buffer) = (routed.end - 1, block.output);
            points.push(Point { op, layer, what: "moe.out", buffer, width: hidden });
        }
        if step.op.io().writes_to(plan.residual) {
            points.retain(|point| (point.layer, point.what) != (layer, "out"));
            points.push(Point { op, layer, what: "out", buffer: plan.residual, width: hidden });
        }
    }
    points
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

    fn found(fixture: &str, what: &str) -> Vec<&'static str> {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
        let plan = Plan::of(&Checkpoint::open(&dir).unwrap()).unwrap();
        let points = points(&plan).into_iter().filter(|point| point.what == what);
        points.map(|point| plan.program[point.op].op.name()).collect()
    }

    #[test]
    fn names_of_buffers_do_not_matter() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/qwen2_moe-q4g64");
        let plan = Plan::of(&Checkpoint::open(&dir).unwrap()).unwrap();
        let mut renamed = plan.clone();
        renamed.buffers.iter_mut().for_each(|buffer| buffer.name = "b");
        let shown = |plan: &Plan| format!("{:?}", points(plan));
        assert_eq!(shown(&renamed), shown(&plan));
        assert_eq!(points(&plan).len(), 4 * plan.spec.layers.len());
    }

    #[test]
    fn a_block_ends_with_its_shared_experts_whatever_is_made_of_it() {
        // No shared experts; shared ones; back from a latent width; a norm after the block, in a sum with an
        // MLP.
        for (fixture, what, op) in [
            ("qwen3_moe-q4g64", "moe.out", "experts"),
            ("qwen2_moe-q4g64", "moe.out", "add"),
            ("gemma4-q4g64", "moe.out", "experts"),
            ("gemma4-q4g64", "out", "scale"),
        ] {
            let found = found(fixture, what);
            assert!(found.len() > 1 && found.iter().all(|name| *name == op), "{fixture}: {found:?}");
        }
    }
}
