//! The reference in step with a backend: every op is computed anew from the backend's own inputs, so an error
//! is charged to the op that made it and nothing builds up.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use amoeba_backend::{Buffers, Executable, Flow, Probe, Reference, Row};
use amoeba_plan::{BlockKind, BufferId, CopyOp, Group, Op, Plan};

use super::lab::Lab;
use crate::Error;
use crate::numbers::{Distance, worse};

/// Outputs narrower than this are gates and router logits: a sigmoid or softmax sees their differences on a
/// scale of one, so that is the least unit they are measured in.
const NARROW: usize = 16;
/// How blocks of experts are called among the ops.
pub const BLOCK: &str = "block of experts";

/// The worst error of a kind of op.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    /// RMS and largest error, each the worst.
    pub distance: Distance,
    /// Where the worst RMS was.
    pub rms_at: String,
    /// Where the largest error was.
    pub max_at: String,
}

/// Worst errors by kind of op.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By name of the op; blocks of experts as [`BLOCK`].
    pub kinds: BTreeMap<&'static str, Worst>,
    /// Rows whose experts were a matter of rounding and were not compared.
    pub undecided: usize,
}

impl Tally {
    fn add(&mut self, kind: &'static str, found: Distance, place: impl FnOnce() -> String) {
        let known = self.kinds.entry(kind).or_default();
        let (rms, max) = (worse(found.rms, known.distance.rms), worse(found.max, known.distance.max));
        if !(rms || max || known.rms_at.is_empty()) {
            return;
        }
        let place = place();
        if rms || known.rms_at.is_empty() {
            (known.distance.rms, known.rms_at) = (found.rms, place.clone());
        }
        if max || known.max_at.is_empty() {
            (known.distance.max, known.max_at) = (found.max, place);
        }
    }
}

/// A reference that follows a backend.
pub struct Lockstep {
    reference: Reference,
    plan: Plan,
    blocks: Vec<Block>,
    /// How far a router's logits may be off, in units of their RMS.
    router_noise: f64,
    /// Buffers as the backend has them, `[buffer][row]`.
    state: Vec<Vec<Vec<f32>>>,
    /// What was found so far.
    pub tally: Tally,
}

/// From the router's product to the last op before the residual stream takes the result in.
#[derive(Clone)]
struct Block {
    ops: Range<usize>,
    input: BufferId,
    route: BufferId,
    router_logits: BufferId,
    top_k: usize,
    output: BufferId,
    /// Input rows at the start.
    rows: Vec<Vec<f32>>,
}

impl Lockstep {
    /// Starts with nothing computed.
    pub fn new(lab: &Lab<'_>) -> Result<Lockstep, Error> {
        let plan = lab.plan.clone();
        Ok(Lockstep {
            reference: lab.reference()?,
            blocks: blocks(&plan),
            router_noise: super::errors::max_allowed(lab, "linear"),
            state: vec![Vec::new(); plan.buffers.len()],
            tally: Tally::default(),
            plan,
        })
    }

    /// Runs a step and judges each of its ops; all rows want logits. `place` says what the rows are.
    ///
    /// # Errors
    /// The step fails.
    pub fn step(&mut self, executable: &mut dyn Executable, rows: &[Row], place: &str) -> Result<(), Error> {
        let mut watcher = Watcher::new(&self.plan, rows.len());
        executable.step(rows, Some(&mut watcher))?;
        let (shown, all) = (watcher.seen, self.plan.program.len());
        if shown != all {
            return Err(Error::Hidden { shown, all });
        }
        for launch in watcher.launches {
            self.judge(launch, rows, place)?;
        }
        for row in 0..rows.len() {
            // What is handed out must be what was computed last.
            let computed = &self.state[self.plan.logits.0][row];
            let found = Distance::of(executable.logits(row), &computed[..self.plan.spec.vocab], 0.0);
            self.tally.add("logits handed out", found, || format!("row {row}, {place}"));
        }
        Ok(())
    }

    /// Repeats the ops of one launch from the buffers the backend had before it.
    fn judge(&mut self, launch: Launch, rows: &[Row], place: &str) -> Result<(), Error> {
        for op in launch.ops.clone() {
            for block in self.blocks.iter_mut().filter(|block| block.ops.start == op) {
                block.rows = self.reference.buffer(block.input).to_vec();
            }
            self.reference.run_op(op, rows)?;
        }
        for (buffer, values) in launch.written {
            self.state[buffer.0] = values;
        }
        for op in launch.ops.clone() {
            for out in self.plan.program[op].op.io().writes.iter().map(|region| region.buffer) {
                let later = &self.plan.program[op + 1..launch.ops.end];
                let hidden = launch.unwritten.contains(&out);
                if !hidden && !later.iter().any(|step| step.op.io().writes_to(out)) {
                    self.compare(op, out, place);
                    self.follow(out);
                }
            }
        }
        for block in self.blocks.clone() {
            if launch.ops.contains(&(block.ops.end - 1)) {
                self.judge_block(&block, rows, place)?;
            }
        }
        Ok(())
    }

    /// Takes over the backend's rows of a buffer, as wide as the reference has them.
    fn follow(&mut self, buffer: BufferId) {
        let widths = self.reference.buffer(buffer).iter().map(Vec::len);
        let rows = self.state[buffer.0].iter().zip(widths).map(|(row, width)| row[..width].to_vec());
        let rows = rows.collect();
        self.reference.set_buffer(buffer, rows);
    }

    fn compare(&mut self, op: usize, out: BufferId, place: &str) {
        let step = &self.plan.program[op];
        let kind = step.op.name();
        let truth = self.reference.buffer(out);
        for (row, (found, truth)) in self.state[out.0].iter().zip(truth).enumerate() {
            let (found, truth) = (written(&step.op, &found[..truth.len()]), written(&step.op, truth));
            let (found, truth) = (&found[..], &truth[..]);
            let distance = match &step.op {
                Op::Router(op) if out == op.out => of_route(found, truth, op.rule.top_k),
                _ => Distance::of(found, truth, if truth.len() < NARROW { 1.0 } else { 0.0 }),
            };
            self.tally.add(kind, distance, || match step.layer {
                Some(layer) => format!("layer {layer}, op {op}, row {row}, {place}"),
                None => format!("op {op}, row {row}, {place}"),
            });
        }
    }

    /// Runs a whole block of experts from its input, its own choice of experts included.
    fn judge_block(&mut self, block: &Block, rows: &[Row], place: &str) -> Result<(), Error> {
        self.reference.set_buffer(block.input, block.rows.clone());
        for op in block.ops.clone() {
            self.reference.run_op(op, rows)?;
        }
        for row in 0..rows.len() {
            let truth = &self.reference.buffer(block.output)[row];
            let found = Distance::of(&self.state[block.output.0][row][..truth.len()], truth, 0.0);
            let [route, own] = [&self.state[block.route.0][row], &self.reference.buffer(block.route)[row]];
            let found = if route[..block.top_k] == own[..block.top_k] {
                found
            } else if undecided(
                &self.reference.buffer(block.router_logits)[row],
                block.top_k,
                self.router_noise,
            ) {
                self.tally.undecided += 1;
                continue;
            } else {
                Distance { rms: f64::INFINITY, max: f64::INFINITY }
            };
            let layer = self.plan.program[block.ops.start].layer.unwrap_or(0);
            self.tally.add(BLOCK, found, || format!("layer {layer}, row {row}, {place}"));
        }
        // Back to what the backend has, for the ops to come.
        self.follow(block.input);
        for op in block.ops.clone() {
            let writes = self.plan.program[op].op.io().writes;
            writes.iter().for_each(|region| self.follow(region.buffer));
        }
        Ok(())
    }
}

/// What an op wrote of a row: all of it, unless it only copies into some places.
fn written<'a>(op: &Op, row: &'a [f32]) -> Cow<'a, [f32]> {
    let Op::Copy(CopyOp { out, heads, len, .. }) = op else { return Cow::Borrowed(row) };
    let copied = (0..*heads).flat_map(|head| &row[out.first + head * out.stride..][..*len]);
    Cow::Owned(copied.copied().collect())
}

/// Distance of routing weights; another choice of experts is infinitely far.
fn of_route(found: &[f32], truth: &[f32], top_k: usize) -> Distance {
    if found[..top_k] == truth[..top_k] {
        Distance::of(&found[top_k..], &truth[top_k..], 0.0)
    } else {
        Distance { rms: f64::INFINITY, max: f64::INFINITY }
    }
}

/// Whether the last expert chosen and the first one not chosen are closer than router logits are computed.
fn undecided(logits: &[f32], top_k: usize, noise: f64) -> bool {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let size = logits.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / logits.len().max(1) as f64;
    let gap = sorted.get(top_k).map_or(f64::INFINITY, |next| f64::from(sorted[top_k - 1] - next));
    gap <= 2.0 * noise * size.sqrt().max(1.0)
}

fn blocks(plan: &Plan) -> Vec<Block> {
    let of_experts = |block: &amoeba_plan::Block| {
        let BlockKind::Experts(routed) = &block.kind else { return None };
        let step = |at: usize| &plan.program[at].op;
        let (Op::Experts(experts), Op::Router(router)) = (step(routed.experts), step(routed.router)) else {
            return None;
        };
        Some(Block {
            ops: routed.scores..block.joins,
            input: experts.x,
            route: experts.route,
            router_logits: router.logits,
            top_k: experts.top_k,
            output: experts.out,
            rows: Vec::new(),
        })
    };
    plan.blocks.iter().filter_map(of_experts).collect()
}

/// Ops that ran together, and what they wrote.
struct Launch {
    ops: Range<usize>,
    unwritten: Vec<BufferId>,
    /// Rows of each buffer.
    written: Vec<(BufferId, Vec<Vec<f32>>)>,
}

/// Keeps what every group of ops wrote.
struct Watcher<'a> {
    plan: &'a Plan,
    rows: usize,
    launches: Vec<Launch>,
    /// Ops that run together, and the buffers that they leave unwritten.
    group: (Range<usize>, Vec<BufferId>),
    seen: usize,
}

impl<'a> Watcher<'a> {
    fn new(plan: &'a Plan, rows: usize) -> Watcher<'a> {
        Watcher { plan, rows, launches: Vec::new(), group: (0..0, Vec::new()), seen: 0 }
    }
}

impl Probe for Watcher<'_> {
    fn wants(&self, _: usize) -> bool {
        true
    }

    fn as_run(&self) -> bool {
        true
    }

    fn group(&mut self, group: &Group) {
        self.group = (group.ops.clone(), group.unwritten.clone());
    }

    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow {
        self.seen += 1;
        if !self.group.0.contains(&op) {
            self.group = (op..op + 1, Vec::new());
        }
        let (ops, unwritten) = self.group.clone();
        if op + 1 < ops.end {
            return Flow::Continue;
        }
        let mut written: Vec<(BufferId, Vec<Vec<f32>>)> = Vec::new();
        let writes = self.plan.program[ops.clone()].iter().flat_map(|step| step.op.io().writes);
        for buffer in writes.map(|region| region.buffer) {
            if unwritten.contains(&buffer) || written.iter().any(|(known, _)| *known == buffer) {
                continue;
            }
            let width = self.plan.buffer(buffer).width;
            let row = |row| {
                let values = buffers.row(buffer, row);
                values[..width.min(values.len())].to_vec()
            };
            written.push((buffer, (0..self.rows).map(row).collect()));
        }
        self.launches.push(Launch { ops, unwritten, written });
        Flow::Continue
    }
}
