//! A trace added up: per worker, per op, and the waits on the way through the experts.

use amoeba_backend::Span;
use serde::{Deserialize, Serialize};

use super::ops::{TracedOp, row_label, span_bytes};
use super::{Subject, Token, Trace};
use crate::bench::{Schema, Spread};

/// What a file of a [`Summary`] says it is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub enum FileKind {
    /// A trace added up.
    #[default]
    #[serde(rename = "amoeba trace")]
    Trace,
}

/// A trace added up. Times are per token; every share is one of the workers' time, duration × workers. Its
/// JSON is what `amoeba trace` stores as a baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the JSON.
    pub schema: Schema<1>,
    /// What the JSON is.
    pub kind: FileKind,
    /// What was traced, and how many tokens.
    #[serde(flatten)]
    pub subject: Subject,
    /// Phases (launches) per token.
    #[serde(rename = "phases_per_token")]
    pub phases: f64,
    /// Bytes read per token: stored weights, keys and values.
    #[serde(rename = "bytes_per_token")]
    pub bytes: f64,
    /// Duration of a token in ns.
    pub wall_ns: Spread,
    /// Share of the workers' time without a span.
    #[serde(rename = "idle_share")]
    pub idle: Spread,
    /// The part of it between the router's output and the weighted sum of the experts, over all layers.
    #[serde(rename = "expert_idle_share")]
    pub expert_idle: Spread,
    /// Least difference that the device's clock tells, in ns, where that is coarse; else 0.
    #[serde(default)]
    pub tick_ns: u64,
    /// Each worker.
    #[serde(rename = "per_worker", skip_deserializing)]
    pub workers: Vec<LaneTime>,
    /// Each kind of op, most time first.
    #[serde(rename = "per_op", skip_deserializing)]
    pub ops: Vec<OpTime>,
}

/// One worker, mean over the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LaneTime {
    /// ns at work.
    pub busy_ns: f64,
    /// ns without work.
    pub idle_ns: f64,
}

/// One kind of op, mean over the tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OpTime {
    /// Name; in brackets the overhead of dividing work.
    pub label: String,
    /// Ops of the kind in a token.
    pub ops: f64,
    /// ns at work, all workers together.
    pub busy_ns: f64,
    /// ns during which at least one worker was at it.
    pub wall_ns: f64,
    /// Bytes read.
    pub bytes: f64,
    /// ns that workers were idle before they took part in it.
    pub wait_ns: f64,
    /// The part of it on the way through the experts.
    pub expert_wait_ns: f64,
}

impl OpTime {
    /// Bytes per second while anyone was at it; `None` if it reads nothing.
    pub fn bandwidth(&self) -> Option<f64> {
        (self.bytes > 0.0 && self.wall_ns > 0.0).then(|| self.bytes * 1e9 / self.wall_ns)
    }
}

impl Trace {
    /// Adds it up.
    pub fn summary(&self) -> Summary {
        let totals: Vec<Total> = self.tokens.iter().map(|token| Total::of(self, token)).collect();
        let n = totals.len().max(1) as f64;
        let mut ops: Vec<OpTime> = Vec::new();
        for found in totals.iter().flat_map(|total| &total.ops) {
            let row = entry(&mut ops, &found.label);
            row.ops += found.ops / n;
            row.busy_ns += found.busy_ns / n;
            row.wall_ns += found.wall_ns / n;
            row.bytes += found.bytes / n;
            row.wait_ns += found.wait_ns / n;
            row.expert_wait_ns += found.expert_wait_ns / n;
        }
        ops.sort_by(|a, b| b.busy_ns.total_cmp(&a.busy_ns));
        let mean = |f: &dyn Fn(&Total) -> f64| totals.iter().map(f).sum::<f64>() / n;
        let worker = |lane: usize| {
            let busy_ns = mean(&|total| total.busy[lane] as f64);
            LaneTime { busy_ns, idle_ns: mean(&|total| total.ns as f64) - busy_ns }
        };
        let share = |f: &dyn Fn(&Total) -> u64| {
            let of = |total: &Total| f(total) as f64 / (total.ns * total.busy.len() as u64).max(1) as f64;
            Spread::of_values(totals.iter().map(of).collect())
        };
        Summary {
            schema: Schema,
            kind: FileKind::Trace,
            subject: Subject { tokens: totals.len(), ..self.subject.clone() },
            wall_ns: Spread::of(&totals.iter().map(|total| total.ns).collect::<Vec<_>>()),
            phases: self.tokens.iter().map(|token| f64::from(token.phases)).sum::<f64>() / n,
            bytes: ops.iter().map(|row| row.bytes).sum(),
            idle: share(&|total| total.busy.iter().map(|busy| total.ns.saturating_sub(*busy)).sum()),
            expert_idle: share(&|total| total.expert_idle),
            tick_ns: self.tokens.first().map_or(0, |token| token.recording.tick_ns),
            workers: (0..self.subject.workers).map(worker).collect(),
            ops,
        }
    }
}

/// One token added up.
struct Total {
    ns: u64,
    busy: Vec<u64>,
    expert_idle: u64,
    ops: Vec<OpTime>,
}

impl Total {
    fn of(trace: &Trace, token: &Token) -> Total {
        let recording = &token.recording;
        let mut total = Total { ns: recording.ns, busy: Vec::new(), expert_idle: 0, ops: Vec::new() };
        let ways = expert_ways(trace, token);
        for lane in &recording.lanes {
            total.busy.push(lane.iter().map(|span| span.end - span.start).sum());
            total.waits(trace, lane, &ways);
        }
        let mut spans: Vec<&Span> = recording.lanes.iter().flatten().collect();
        spans.sort_by_key(|span| span.start);
        // End of what is counted as wall time so far, and the last (op, stage) that read its bytes, by row.
        let mut covered: Vec<(String, u64)> = Vec::new();
        let mut read = Vec::new();
        for span in spans {
            let label = row_label(&trace.ops, span);
            let end = match covered.iter_mut().find(|(known, _)| *known == label) {
                Some((_, end)) => end,
                None => {
                    covered.push((label.clone(), 0));
                    &mut covered.last_mut().expect("just pushed").1
                }
            };
            let row = entry(&mut total.ops, &label);
            row.busy_ns += (span.end - span.start) as f64;
            row.wall_ns += span.end.saturating_sub(span.start.max(*end)) as f64;
            *end = span.end.max(*end);
            if !read.contains(&(span.op, span.stage)) {
                read.push((span.op, span.stage));
                row.ops += 1.0;
                row.bytes += span_bytes(&trace.ops, span, token.position + 1);
            }
        }
        total
    }

    /// Attributes each gap of a worker to the op that it works at next; on the way through the experts to the
    /// weighted sum if it has no more work there.
    fn waits(&mut self, trace: &Trace, lane: &[Span], ways: &[Way]) {
        let mut free = 0;
        for span in lane {
            self.gap(&row_label(&trace.ops, span), free, span.start, span.start, ways);
            free = span.end;
        }
        self.gap("(end)", free, self.ns, self.ns, ways);
    }

    fn gap(&mut self, label: &str, from: u64, to: u64, next: u64, ways: &[Way]) {
        if to <= from {
            return;
        }
        entry(&mut self.ops, label).wait_ns += (to - from) as f64;
        for way in ways {
            let inside = to.min(way.end).saturating_sub(from.max(way.start));
            if inside > 0 {
                self.expert_idle += inside;
                let waits = if next < way.end { label } else { &way.last };
                entry(&mut self.ops, waits).expert_wait_ns += inside as f64;
            }
        }
    }
}

fn entry<'a>(ops: &'a mut Vec<OpTime>, label: &str) -> &'a mut OpTime {
    let index = ops.iter().position(|row| row.label == label).unwrap_or_else(|| {
        ops.push(OpTime { label: label.to_owned(), ..OpTime::default() });
        ops.len() - 1
    });
    &mut ops[index]
}

/// From the end of a router to the end of the last span of its experts.
pub struct Way {
    /// Index of the experts op.
    pub op: usize,
    /// ns since the step's start.
    pub start: u64,
    /// ns since the step's start.
    pub end: u64,
    /// Row of what ends it.
    last: String,
}

/// The way through the experts in every layer that has them.
pub fn expert_ways(trace: &Trace, token: &Token) -> Vec<Way> {
    let spans = || token.recording.lanes.iter().flatten();
    let of = |(op, traced): (usize, &TracedOp)| {
        let router = traced.router?;
        // Where a launch chooses experts itself, the way begins with it.
        let begins = |span: &Span| if span.ops().contains(&op) { span.start } else { span.end };
        let start = spans().filter(|span| span.ops().contains(&router)).map(begins).max()?;
        let last = spans().filter(|span| span.ops().contains(&op)).max_by_key(|span| span.end)?;
        Some(Way { op, start, end: last.end, last: row_label(&trace.ops, last) })
    };
    trace.ops.iter().enumerate().filter_map(of).collect()
}
