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
pub fn points(plan: &Plan) -> Vec<Point> {
    let Some(residual) = plan.buffer_named("residual") else { return Vec::new() };
    let hidden = plan.spec.hidden;
    let mut points: Vec<Point> = Vec::new();
    let mut moe = None;
    for (op, step) in plan.program.iter().enumerate() {
        let Some(layer) = step.layer else { continue };
        let mut push = |what, buffer, width| points.push(Point { op, layer, what, buffer, width });
        match &step.op {
            Op::Experts(experts) => {
                push("moe.in", experts.x, hidden);
                push("moe.route", experts.route, 2 * experts.top_k);
                moe = Some(layer);
            }
            Op::Add { x, y, .. } if *x == residual => {
                if moe.take() == Some(layer) {
                    push("moe.out", *y, hidden);
                }
                points.retain(|point| (point.layer, point.what) != (layer, "out"));
                points.push(Point { op, layer, what: "out", buffer: residual, width: hidden });
            }
            _ => {}
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

    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow {
        for (point, values) in self.points.iter().zip(&mut self.values).filter(|(point, _)| point.op == op) {
            for row in 0..self.rows {
                values.extend_from_slice(&buffers.row(point.buffer, row)[..point.width]);
            }
        }
        Flow::Continue
    }
}
