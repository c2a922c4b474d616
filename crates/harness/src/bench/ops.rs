//! What each op of a step takes, from steps recorded off the clock, and what it must read and multiply.

use amoeba_backend::{Error as BackendError, Executable, Recording, Row as Token, Stage};
use amoeba_plan::Op;

use super::case::Case;
use super::parts::{IDLE, OpTime, OpTimes};
use super::steps::Steps;
use super::subject::Kind;
use crate::Error;
use crate::trace::{Subject, Token as Traced, Trace, TracedOp, row_label, traced_ops, visible};

/// Steps recorded of a test, at most.
const STEPS: usize = 8;
/// Spans reserved per worker at first; a step with more says how many it needs.
const SPANS: usize = 1 << 12;

/// Records the first steps of a test and fills in what its row says of them: nothing if the device does not
/// record.
pub(super) fn record(
    executable: &mut dyn Executable,
    case: &mut Case<'_>,
    steps: &Steps,
) -> Result<(), Error> {
    match executable.record(SPANS) {
        Err(BackendError::CannotRecord(_)) => return Ok(()),
        other => other?,
    }
    let recordings = recordings(executable, steps);
    executable.record(0)?;
    let mut found: Vec<_> = recordings?.into_iter().zip(&steps.timed).collect();
    // The faster half of like steps: while the system takes a core away, time says nothing about ops.
    let rows = steps.timed.first().map_or(0, Vec::len);
    found.retain(|(_, step)| step.len() == rows);
    found.sort_by_key(|(recording, _)| recording.ns);
    found.truncate(found.len().div_ceil(2));
    let (recordings, steps): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let shapes: Vec<Shape> = steps.into_iter().map(|rows| Shape::of(case, rows)).collect();
    add_up(case, &shapes, recordings);
    Ok(())
}

fn recordings(executable: &mut dyn Executable, steps: &Steps) -> Result<Vec<Recording>, Error> {
    steps.before.iter().try_for_each(|rows| executable.step(rows, None))?;
    let mut found = Vec::new();
    let timed = &steps.timed[..steps.timed.len().min(STEPS)];
    while let Some(rows) = timed.get(found.len()) {
        executable.step(rows, None)?;
        match executable.recorded() {
            Ok(recording) => found.push(recording),
            // The same positions again: a step may be repeated, but for recurrences, which begin again.
            Err(BackendError::RecordingFull { needed, .. }) => {
                executable.record(2 * needed)?;
                if executable.plan().recurrent() {
                    found.clear();
                    steps.before.iter().try_for_each(|rows| executable.step(rows, None))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// What of a step decides how much its ops read and multiply.
struct Shape {
    rows: f64,
    logits: f64,
    /// Positions that the rows see, summed.
    seen: f64,
    /// Positions whose keys and values are read: those of each sequence once.
    read: f64,
    window_rows: Vec<usize>,
    /// Experts needed over experts of one row.
    experts: f64,
}

impl Shape {
    fn of(case: &Case<'_>, rows: &[Token]) -> Shape {
        let seen: Vec<usize> = rows.iter().map(|row| row.position + 1).collect();
        let all = seen.iter().sum::<usize>() as f64;
        let read =
            if case.test.kind == Kind::Prefill { seen.iter().max().map_or(0.0, |n| *n as f64) } else { all };
        let (_, experts, top_k) = case.model.routers().next().unwrap_or((0, 1, 1));
        // Rows of a prompt are taken to need as many experts as they can.
        let most = experts.min(top_k * rows.len()) as f64;
        Shape {
            rows: rows.len() as f64,
            logits: rows.iter().filter(|row| row.logits).count() as f64,
            seen: all,
            read,
            window_rows: seen,
            experts: case.row.distinct_experts.unwrap_or(most) / top_k as f64,
        }
    }

    /// Bytes and products of one op of the program.
    fn cost(&self, case: &Case<'_>, index: usize, traced: &TracedOp) -> [f64; 2] {
        let plan = case.model.plan();
        let op = &plan.program[index].op;
        let rows = if index < plan.head { self.rows } else { self.logits };
        let products = case.model.op_products(op) * rows;
        match op {
            Op::Experts(_) => [traced.weight_bytes * self.experts, products],
            Op::Embed(_) => [traced.weight_bytes * rows, products],
            Op::Attention(op) => {
                let seen: f64 = self.window_rows.iter().map(|n| visible(*n as f64, op.window)).sum();
                let read = self.read * seen / self.seen.max(1.0);
                [traced.kv_bytes * read, (op.heads * (op.head_dim + op.v_dim)) as f64 * seen]
            }
            _ => [traced.weight_bytes, products],
        }
    }
}

/// What one kind of op takes, per step.
#[derive(Default)]
struct Sum {
    name: String,
    wall_ns: f64,
    /// All workers together.
    busy_ns: f64,
    bytes: f64,
    products: f64,
}

fn add_up(case: &mut Case<'_>, shapes: &[Shape], recordings: Vec<Recording>) {
    let n = recordings.len().max(1) as f64;
    let workers = recordings.first().map_or(0, |recording| recording.lanes.len());
    let ops = traced_ops(case.model, case.kv);
    let spans = recordings.iter().flat_map(|recording| recording.lanes.iter().flatten());
    let serial = spans.filter(|span| matches!(span.stage, Stage::Start | Stage::Check));
    let host_ns = serial.map(|span| (span.end - span.start) as f64).sum::<f64>() / n;
    let step_ns = recordings.iter().map(|recording| recording.ns as f64).sum::<f64>() / n;
    // Ops that share a launch are one kind.
    let mut kinds: Vec<String> = ops.iter().map(|op| op.label.clone()).collect();
    for span in recordings.iter().take(1).flat_map(|recording| recording.lanes.iter().flatten()) {
        if span.ops > 1 && span.stage == Stage::Whole {
            kinds[span.ops()].fill(row_label(&ops, span));
        }
    }
    let mut found: Vec<Sum> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let entry = entry(&mut found, &kinds[index]);
        for shape in shapes {
            let [bytes, products] = shape.cost(case, index, op);
            (entry.bytes, entry.products) = (entry.bytes + bytes / n, entry.products + products / n);
        }
    }
    let token = |recording| Traced { position: 0, at: 0, phases: 0, recording };
    let subject = Subject { workers, ..Subject::default() };
    let summary = Trace { subject, ops, tokens: recordings.into_iter().map(token).collect() }.summary();
    for time in &summary.ops {
        // The stages of an op follow each other: their wall times add up.
        let entry = entry(&mut found, time.label.split(' ').next().unwrap_or_default());
        (entry.wall_ns, entry.busy_ns) = (entry.wall_ns + time.wall_ns, entry.busy_ns + time.busy_ns);
    }
    found.retain(|op| op.wall_ns > 0.0);
    found.sort_by(|a, b| b.busy_ns.total_cmp(&a.busy_ns));
    let busy: f64 = found.iter().map(|op| op.busy_ns).sum();
    let share = |ns: f64| Some(ns / workers.max(1) as f64);
    let time = |op: Sum| {
        let Sum { name, wall_ns, busy_ns, bytes, products } = op;
        let [wall_ns, bytes, products] = [wall_ns, bytes, products].map(Some);
        (name, OpTime { wall_ns, worker_ns: share(busy_ns), bytes, products })
    };
    let idle = share((step_ns * workers as f64 - busy).max(0.0));
    let idle = (IDLE.to_owned(), OpTime { worker_ns: idle, ..OpTime::default() });
    let row = &mut case.row;
    row.rows_per_step = Some(shapes.iter().map(|shape| shape.rows).sum::<f64>() / n);
    row.step_ns = Some(step_ns);
    row.host_ns_per_step = Some(host_ns);
    row.execute_ns_per_step = Some(step_ns - host_ns);
    row.op_times = Some(OpTimes(found.into_iter().map(time).chain([idle]).collect()));
}

fn entry<'a>(sums: &'a mut Vec<Sum>, name: &str) -> &'a mut Sum {
    let index = sums.iter().position(|sum| sum.name == name).unwrap_or_else(|| {
        sums.push(Sum { name: name.to_owned(), ..Sum::default() });
        sums.len() - 1
    });
    &mut sums[index]
}
