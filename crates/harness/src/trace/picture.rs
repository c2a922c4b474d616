//! Timelines above each other on one scale, as SVG: the whole token, and the way through the experts of one
//! layer.

use std::fmt::Write;

use amoeba_backend::{Span, Stage};
use amoeba_plan::Part;

use super::ops::row_label;
use super::summary::expert_ways;
use super::{Token, Trace};

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 20.0;
/// Heights: all workers of a timeline together at most, one worker at most.
const TIMELINE: f64 = 180.0;
const WORKER: f64 = 26.0;
/// Slices of one colour that are closer than this many pixels are drawn as one.
const MERGE: f64 = 0.2;
/// Width of a letter of the small text, about.
const LETTER: f64 = 6.0;
const IDLE: &str = "#dddddd";
/// Colours that people with any colour vision tell apart, with their names.
const KINDS: [(&str, &str); 8] = [
    ("attention", "#0072b2"),
    ("router", "#d55e00"),
    ("experts", "#009e73"),
    ("shared experts", "#56b4e9"),
    ("mlp", "#8c6bb1"),
    ("head", "#cc79a7"),
    ("norms, other", "#e6c700"),
    ("sharing out, checks", "#666666"),
];

/// Those that need dark text.
const LIGHT: [usize; 2] = [3, 6];

/// Index into [`KINDS`].
fn kind(trace: &Trace, span: &Span) -> usize {
    match (span.stage, trace.part(span)) {
        (Stage::Start | Stage::Input | Stage::Inner | Stage::Check | Stage::Angles, _) | (_, None) => 7,
        (_, Some(Part::Attention | Part::Recurrent)) => 0,
        (_, Some(Part::Router)) => 1,
        (_, Some(Part::Experts)) => 2,
        (_, Some(Part::Shared)) => 3,
        (_, Some(Part::Mlp)) => 4,
        (_, Some(Part::Head)) => 5,
        (_, Some(Part::Embedding | Part::Other)) => 6,
    }
}

/// Draws the shortest token of each trace. Every panel has one scale for all traces.
pub fn picture(traces: &[&Trace]) -> String {
    let mut canvas = Canvas { body: String::new(), y: 30.0, used: [false; KINDS.len()] };
    let title = traces.first().map_or_else(String::new, |trace| {
        let subject = &trace.subject;
        format!(
            "{}: one decode token, {} cached before, {}",
            subject.model, subject.depth, subject.device_detail
        )
    });
    canvas.text(20.0, 17.0, "600", "start", &title);
    let whole = |trace: &Trace| Some((0, trace.shortest()?.recording.ns));
    let of = traces.first().map_or(0, |trace| trace.tokens.len());
    let name = if of > 1 { format!("Whole token, the shortest of {of}") } else { "Whole token".to_owned() };
    canvas.panel(&name, traces, &whole, false);
    let layer = traces.first().and_then(|trace| middle_layer(trace));
    if let Some(layer) = layer {
        let name = format!("Layer {layer}: from the router to the weighted sum of the experts");
        canvas.panel(&name, traces, &|trace| experts_of(trace, layer), true);
    }
    canvas.legend();
    let height = canvas.y + 20.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 \
         {WIDTH} \
         {height:.0}\" font-family=\"Helvetica, Arial, sans-serif\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"#ffffff\"/>\n{}</svg>\n",
        canvas.body
    )
}

/// The layer with experts in the middle.
fn middle_layer(trace: &Trace) -> Option<usize> {
    let with: Vec<usize> =
        trace.ops.iter().filter(|op| op.router.is_some()).filter_map(|op| op.layer).collect();
    with.get(with.len() / 2).copied()
}

/// From the start of a layer's router to the end of its experts.
fn experts_of(trace: &Trace, layer: usize) -> Option<(u64, u64)> {
    let token = trace.shortest()?;
    let way = expert_ways(trace, token).into_iter().find(|way| trace.ops[way.op].layer == Some(layer))?;
    let router = token.recording.lanes.iter().flatten().filter(|span| span.end <= way.start);
    let of_layer = |span: &&Span| {
        span.op.is_some_and(|op| {
            let op = &trace.ops[op as usize];
            op.layer == Some(layer) && op.part == Part::Router
        })
    };
    Some((router.filter(of_layer).map(|span| span.start).min().unwrap_or(way.start), way.end))
}

struct Canvas {
    body: String,
    /// Where the next thing goes.
    y: f64,
    used: [bool; KINDS.len()],
}

impl Canvas {
    fn text(&mut self, x: f64, size: f64, weight: &str, anchor: &str, text: &str) {
        let (y, text) = (self.y, escaped(text));
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-weight=\"{weight}\" \
             text-anchor=\"{anchor}\" fill=\"#222222\">{text}</text>"
        );
    }

    fn rect(&mut self, x: f64, width: f64, height: f64, fill: &str) {
        let y = self.y;
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
        );
    }

    /// A timeline per trace, from the start of its window; a window of `None` leaves the trace out.
    fn panel(
        &mut self,
        title: &str,
        traces: &[&Trace],
        window: &dyn Fn(&Trace) -> Option<(u64, u64)>,
        named: bool,
    ) {
        let windows: Vec<_> = traces.iter().filter_map(|trace| Some((*trace, window(trace)?))).collect();
        let longest = windows.iter().map(|(_, (start, end))| end - start).max().unwrap_or(0).max(1);
        let scale = (WIDTH - LEFT - RIGHT) / longest as f64;
        self.y += 34.0;
        self.text(20.0, 14.0, "600", "start", title);
        self.y += 12.0;
        for (trace, (start, end)) in windows {
            self.timeline(trace, start, end, scale, named);
            self.y += 14.0;
        }
        self.axis(longest, scale);
    }

    fn timeline(&mut self, trace: &Trace, start: u64, end: u64, scale: f64, named: bool) {
        let Some(token) = trace.shortest() else { return };
        let lanes = &token.recording.lanes;
        let height = (TIMELINE / lanes.len().max(1) as f64).min(WORKER);
        // Many workers (the multiprocessors of a GPU) stand without a gap.
        let bar = if height > 6.0 { height - 2.0 } else { height };
        let top = self.y;
        self.y += 13.0;
        self.text(LEFT - 10.0, 13.0, "600", "end", &trace.subject.path);
        self.y += 15.0;
        let idle = idle_share(token, start, end);
        let facts = format!("{:.1} µs, idle {:.0} %", (end - start) as f64 / 1e3, idle * 100.0);
        self.text(LEFT - 10.0, 11.0, "400", "end", &facts);
        self.y = top;
        for lane in lanes {
            self.rect(LEFT, (end - start) as f64 * scale, bar, IDLE);
            let inside = lane.iter().filter(|span| span.end > start && span.start < end);
            let slices = inside.map(|span| {
                let at = |time: u64| (time.clamp(start, end) - start) as f64 * scale;
                Slice { from: at(span.start), to: at(span.end), kind: kind(trace, span), span: *span }
            });
            let slices = merged(slices);
            for slice in &slices {
                self.used[slice.kind] = true;
                self.rect(LEFT + slice.from, (slice.to - slice.from).max(0.15), bar, KINDS[slice.kind].1);
            }
            if named && height > 14.0 {
                let label = |slice: &Slice| row_label(&trace.ops, &slice.span);
                for run in slices.chunk_by(|a, b| label(a) == label(b)) {
                    self.label(run, height, &label(&run[0]));
                }
            }
            self.y += height;
        }
        self.y = self.y.max(top + 34.0);
    }

    /// The name of neighbours across them, if it fits.
    fn label(&mut self, run: &[Slice], height: f64, label: &str) {
        let (from, to) = (run[0].from, run[run.len() - 1].to);
        if to - from < LETTER * (label.chars().count() + 1) as f64 {
            return;
        }
        let (x, y, label) = (LEFT + (from + to) / 2.0, self.y + height / 2.0 + 3.0, escaped(label));
        let fill = if LIGHT.contains(&run[0].kind) { "#222222" } else { "#ffffff" };
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"11\" text-anchor=\"middle\" \
             fill=\"{fill}\">{label}</text>"
        );
    }

    /// Times at even steps.
    fn axis(&mut self, longest: u64, scale: f64) {
        let rough = longest as f64 / 8.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough).max(1.0);
        for i in 0..=(longest as f64 / step) as u64 {
            let ns = i as f64 * step;
            self.y += 4.0;
            self.text(LEFT + ns * scale, 11.0, "400", "middle", &format!("{} µs", ns / 1e3));
            self.y -= 4.0;
        }
        self.y += 8.0;
    }

    fn legend(&mut self) {
        self.y += 26.0;
        let used: Vec<_> = (0..KINDS.len()).filter(|&i| self.used[i]).map(|i| KINDS[i]).collect();
        let mut x = 20.0;
        for (name, colour) in used.into_iter().chain([("idle", IDLE)]) {
            self.y -= 10.0;
            self.rect(x, 12.0, 12.0, colour);
            self.y += 10.0;
            self.text(x + 17.0, 12.0, "400", "start", name);
            x += 40.0 + 6.6 * name.len() as f64;
        }
    }
}

struct Slice {
    from: f64,
    to: f64,
    kind: usize,
    span: Span,
}

/// Neighbours of one colour joined, so that a long token stays a small file.
fn merged(slices: impl Iterator<Item = Slice>) -> Vec<Slice> {
    let mut out: Vec<Slice> = Vec::new();
    for slice in slices {
        match out.last_mut() {
            Some(last)
                if last.kind == slice.kind
                    && slice.from - last.to < MERGE
                    && (last.to - last.from < 1.0 || slice.to - slice.from < 1.0) =>
            {
                last.to = slice.to;
            }
            _ => out.push(slice),
        }
    }
    out
}

/// Share of the workers' time in a window without work.
fn idle_share(token: &Token, start: u64, end: u64) -> f64 {
    let lanes = &token.recording.lanes;
    let inside = |span: &Span| span.end.min(end).saturating_sub(span.start.max(start));
    let busy: u64 = lanes.iter().flatten().map(inside).sum();
    1.0 - busy as f64 / ((end - start).max(1) * lanes.len().max(1) as u64) as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
