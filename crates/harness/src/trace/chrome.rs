//! Traces in the trace-event format, which Perfetto and chrome://tracing open: a process per trace, a row per
//! worker.

use amoeba_backend::{Recording, Span, Stage};
use serde_json::{Value, json};

use super::ops::{TracedOp, main_op, row_label, span_bytes};
use super::{Subject, Token, Trace};

/// Intervals of a token over which the bandwidth is averaged.
const INTERVALS: u64 = 200;
/// Row of the tokens; worker `i` has row `i + 1`.
const TOKENS: usize = 0;

/// A file with all traces, each a process of its own.
pub fn chrome(traces: &[&Trace]) -> String {
    let mut events = Vec::new();
    for (index, trace) in traces.iter().enumerate() {
        Process { pid: index + 1, trace }.events(&mut events);
    }
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let about: Vec<Value> = traces.iter().map(|trace| about(&trace.subject)).collect();
    let about = json!({ "program": "amoeba trace", "traces": about });
    format!(
        "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":[\n{}\n]}}\n",
        lines.join(",\n")
    )
}

fn about(subject: &Subject) -> Value {
    let Subject { model, model_hash, device_detail, path_reason, kv, depth, build, host, .. } = subject;
    json!({
        "model": model, "model_hash": model_hash, "device": device_detail, "path": path_reason, "kv_type": kv,
        "depth": depth, "version": build.version, "commit": build.commit, "dirty": build.dirty,
        "cpu": host.cpu, "os": host.os,
    })
}

struct Process<'a> {
    pid: usize,
    trace: &'a Trace,
}

impl Process<'_> {
    fn events(&self, out: &mut Vec<Value>) {
        let subject = &self.trace.subject;
        let Subject { model, device_detail, path, workers, .. } = subject;
        self.name(out, TOKENS, "process_name", json!({ "name": format!("{device_detail}, {path} path") }));
        self.name(out, TOKENS, "process_labels", json!({ "labels": model }));
        for row in 0..=*workers {
            let name = if row == TOKENS { "tokens".to_owned() } else { subject.lane(row - 1) };
            self.name(out, row, "thread_name", json!({ "name": name }));
            self.name(out, row, "thread_sort_index", json!({ "sort_index": row }));
        }
        for token in &self.trace.tokens {
            self.token(out, token);
        }
    }

    fn name(&self, out: &mut Vec<Value>, tid: usize, name: &str, args: Value) {
        out.push(json!({ "ph": "M", "name": name, "pid": self.pid, "tid": tid, "args": args }));
    }

    fn token(&self, out: &mut Vec<Value>, token: &Token) {
        let Recording { lanes, ns, .. } = &token.recording;
        let args = json!({ "position": token.position, "phases": token.phases });
        let name = format!("token at position {}", token.position);
        out.push(self.slice(&name, "token", TOKENS, [token.at, *ns], args));
        let parts = Parts::of(lanes);
        let bytes = |span: &Span| span_bytes(&self.trace.ops, span, token.position + 1) / parts.count(span);
        for (lane, span) in lanes.iter().enumerate().flat_map(|(i, lane)| lane.iter().map(move |s| (i, s))) {
            let op = main_op(&self.trace.ops, span);
            let mut args = json!({ "phase": span.phase, "path": self.trace.subject.path });
            if let Some(TracedOp { layer, .. }) = op {
                let names = span.ops().map(|index| format!("{index} {}", self.trace.ops[index].name));
                args["op"] = json!(names.collect::<Vec<_>>().join(", "));
                args["layer"] = json!(layer);
            }
            if bytes(span) > 0.0 {
                args["bytes"] = json!(bytes(span).round() as u64);
            }
            let category = op.map_or_else(|| "step".to_owned(), |op| op.part.to_string());
            let time = [token.at + span.start, span.end - span.start];
            out.push(self.slice(&row_label(&self.trace.ops, span), &category, lane + 1, time, args));
        }
        self.bandwidth(out, token, &bytes);
    }

    /// A complete event; `time` is start and duration in ns.
    fn slice(&self, name: &str, category: &str, tid: usize, time: [u64; 2], args: Value) -> Value {
        let [ts, dur] = time.map(micros);
        json!({
            "ph": "X", "name": name, "cat": category, "pid": self.pid, "tid": tid, "ts": ts, "dur": dur,
            "args": args,
        })
    }

    /// The bytes of each span spread evenly over its time, averaged over intervals.
    fn bandwidth(&self, out: &mut Vec<Value>, token: &Token, bytes: &dyn Fn(&Span) -> f64) {
        let Recording { lanes, ns, .. } = &token.recording;
        let width = ns.div_ceil(INTERVALS).max(1);
        let mut sums = vec![0.0; ns.div_ceil(width) as usize];
        for span in lanes.iter().flatten().filter(|span| span.end > span.start) {
            let rate = bytes(span) / (span.end - span.start) as f64;
            for i in span.start / width..span.end.div_ceil(width) {
                let inside = span.end.min((i + 1) * width) - span.start.max(i * width);
                sums[i as usize] += rate * inside as f64;
            }
        }
        sums.push(0.0);
        for (i, sum) in sums.iter().enumerate() {
            let ts = micros(token.at + (i as u64 * width).min(*ns));
            // Bytes per ns are GB per second.
            let rate = (sum / width as f64 * 1e3).round() / 1e3;
            let args = json!({ "GB/s": rate });
            out.push(json!({ "ph": "C", "name": "bandwidth", "pid": self.pid, "tid": TOKENS, "ts": ts,
                "args": args }));
        }
    }
}

/// The format counts in microseconds.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Number of spans that share each stage of an op.
struct Parts(Vec<((Option<u32>, Stage), u32)>);

impl Parts {
    fn of(lanes: &[Vec<Span>]) -> Parts {
        let mut keys: Vec<_> = lanes.iter().flatten().map(|span| (span.op, span.stage)).collect();
        keys.sort_unstable();
        let counted = keys.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32));
        Parts(counted.collect())
    }

    fn count(&self, span: &Span) -> f64 {
        let key = (span.op, span.stage);
        self.0.binary_search_by_key(&key, |(known, _)| *known).map_or(1.0, |i| f64::from(self.0[i].1))
    }
}
