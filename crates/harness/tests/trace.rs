//! `trace`: the file fits the format, the sums add up, and the check fails for the right reason. No test
//! asserts a time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use amoeba_backend::{KvType, Stage};
use amoeba_engine::{Device, LoadOptions};
use amoeba_harness::bench::Spread;
use amoeba_harness::trace::*;
use amoeba_plan::{PathChoice, PathKind};
use serde_json::{Value, json};

const MOE: &str = "fixtures/qwen2_moe-q4g64";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn options(path: PathChoice, tokens: usize) -> CaptureOptions {
    let load = LoadOptions { path, threads: Some(2), ..LoadOptions::default() };
    CaptureOptions { name: "a <model>".to_owned(), load, tokens, ..CaptureOptions::default() }
}

fn traced(model: &str, path: PathChoice, tokens: usize) -> Trace {
    capture(&folder(model), &options(path, tokens)).unwrap()
}

/// Checks a file against the trace-event format: keys by type, times, names of all rows, no overlap within a
/// row.
fn validate(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    assert!(file["displayTimeUnit"] == "ns" && file["otherData"].is_object());
    let events = file["traceEvents"].as_array().unwrap().clone();
    let mut named = BTreeSet::new();
    let mut rows: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    for event in &events {
        let row = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let name = event["name"].as_str().unwrap();
        let time = |key: &str| event[key].as_f64().filter(|time| *time >= 0.0).unwrap();
        assert!(!name.is_empty() && event["args"].is_object());
        match event["ph"].as_str().unwrap() {
            "M" if name == "thread_name" => {
                assert!(event["args"]["name"].is_string() && named.insert(row));
            }
            "M" if name == "process_name" => assert!(event["args"]["name"].is_string()),
            "M" => assert!(["process_labels", "thread_sort_index"].contains(&name), "{name}"),
            "X" => {
                assert!(event["cat"].is_string());
                rows.entry(row).or_default().push((time("ts"), time("dur")));
            }
            "C" => {
                time("ts");
                assert!(event["args"].as_object().unwrap().values().all(|v| v.as_f64().unwrap() >= 0.0));
            }
            other => panic!("phase type {other}"),
        }
    }
    for (row, mut slices) in rows {
        assert!(named.contains(&row), "row {row:?} has no name");
        slices.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Microseconds with three digits: a thousandth of the last is rounding.
        assert!(slices.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0 + 1e-6), "{row:?} overlaps");
    }
    events
}

#[test]
fn the_file_fits_the_format_and_holds_every_op_once() {
    let [fused, unfused] = [PathChoice::Fused, PathChoice::Unfused].map(|path| traced(MOE, path, 2));
    let events = validate(&chrome(&[&fused, &unfused]));
    let slices = |pid: u64| {
        let of = move |event: &&Value| event["ph"] == "X" && event["pid"] == pid && event["cat"] != "token";
        events.iter().filter(of)
    };
    for (pid, trace) in [(1, &fused), (2, &unfused)] {
        for token in &trace.tokens {
            let whole = |op: &u32| {
                let spans = token.recording.lanes.iter().flatten();
                spans.filter(|s| s.op == Some(*op)).any(|s| [Stage::Whole, Stage::Combine].contains(&s.stage))
            };
            assert!((0..trace.ops.len() as u32).all(|op| whole(&op)), "an op is missing");
        }
        let layers: BTreeSet<u64> = slices(pid).filter_map(|event| event["args"]["layer"].as_u64()).collect();
        let expected: BTreeSet<u64> = trace.ops.iter().filter_map(|op| op.layer).map(|l| l as u64).collect();
        assert_eq!(layers, expected);
        let routers = slices(pid).filter(|event| event["name"] == "router").count();
        assert_eq!(routers, expected.len() * trace.tokens.len(), "one router per layer and token");
        let bytes: u64 = slices(pid).filter_map(|event| event["args"]["bytes"].as_u64()).sum();
        let expected = trace.summary().bytes * trace.tokens.len() as f64;
        assert!((bytes as f64 / expected - 1.0).abs() < 1e-3, "{bytes} bytes of {expected}");
        assert!(slices(pid).all(|event| event["args"]["path"] == trace.subject.path));
    }
    assert!(events.iter().any(|event| event["ph"] == "C" && event["args"]["GB/s"].as_f64().unwrap() > 0.0));
    assert!(fused.is(PathKind::Fused) && unfused.is(PathKind::Unfused));
    assert!(fused.summary().phases < unfused.summary().phases, "fusing saves phases");
}

#[test]
fn sums_add_up() {
    for (model, path) in
        [(MOE, PathChoice::Auto), (MOE, PathChoice::Unfused), ("fixtures/llama-q4g64", PathChoice::Auto)]
    {
        let trace = traced(model, path, 3);
        let summary = trace.summary();
        for token in &trace.tokens {
            let spans = |lane: &Vec<amoeba_backend::Span>| lane.iter().map(|s| s.end - s.start).sum::<u64>();
            assert!(token.recording.lanes.iter().all(|lane| spans(lane) <= token.recording.ns));
        }
        let time = |f: &dyn Fn(&OpTime) -> f64| summary.ops.iter().map(f).sum::<f64>();
        let [busy, idle] = [|w: &LaneTime| w.busy_ns, |w: &LaneTime| w.idle_ns]
            .map(|f| summary.workers.iter().map(f).sum::<f64>());
        assert!((time(&|op| op.busy_ns) / busy - 1.0).abs() < 1e-9, "every span is in the table");
        assert!((time(&|op| op.wait_ns) / idle - 1.0).abs() < 1e-9, "every gap is attributed");
        assert!(summary.ops.iter().all(|op| op.wall_ns <= op.busy_ns && op.expert_wait_ns <= idle));
        let experts = time(&|op| op.expert_wait_ns);
        assert!(experts <= idle && (experts == 0.0) == (model != MOE), "{model}: {experts}");
        assert_eq!(summary.idle.median > 0.0, summary.expert_idle.median <= summary.idle.median);
        let text = summary.markdown();
        assert!(text.contains("worker 1: busy") && text.contains("| lm_head | 1 |"), "{text}");
        assert_eq!(
            text.contains("between router and sum of experts"),
            model == MOE || text.contains("of it")
        );
    }
}

#[test]
fn bytes_are_those_of_bench() {
    for model in [MOE, "fixtures/llama-q4g64", "models/tiny-chat-moe-4bit"] {
        let options = CaptureOptions { depth: 20, ..options(PathChoice::Auto, 1) };
        let (mut executable, model) = load(&folder(model), &options).unwrap();
        let trace = capture_on(&mut *executable, &model, &options).unwrap();
        assert_eq!(trace.tokens[0].position, 20);
        let top_k: Vec<f64> = model.routers().map(|(_, _, top_k)| top_k as f64).collect();
        let expected = model.reads(1, 21.0, KvType::F32, &top_k).total();
        let bytes = trace.summary().bytes;
        // Of a tied table, `bench` counts the head only; both leave biases of experts out.
        assert!((bytes / expected - 1.0).abs() < 1e-6, "{bytes} here, {expected} there");
        assert!(executable.recorded().is_err(), "recording is off again");
    }
}

fn baseline() -> Summary {
    traced(MOE, PathChoice::Fused, TOKENS_CHECK_MIN).summary()
}

#[test]
fn each_figure_that_grows_is_named() {
    let now = baseline();
    let stored = Summary::baseline(&json!(now).to_string()).unwrap();
    assert_eq!(now.unlike(&stored), Vec::<String>::new());
    assert_eq!(now.grew(&stored), [], "nothing is worse than itself");
    let what = |change: &dyn Fn(&mut Summary)| -> Vec<&str> {
        let mut stored = stored.clone();
        change(&mut stored);
        now.grew(&stored).iter().map(|growth| growth.what).collect()
    };
    let low = Spread { median: -0.5, p10: -0.6, p90: -0.4 };
    assert_eq!(what(&|s| s.phases -= 1.0), ["phases per token"]);
    assert_eq!(what(&|s| s.bytes -= 1.0), ["bytes per token"]);
    assert_eq!(what(&|s| s.idle = low), ["idle time"]);
    assert_eq!(what(&|s| s.expert_idle = low), ["idle time on the way through the experts"]);
    assert_eq!(what(&|s| s.wall_ns.median = 1.0), Vec::<&str>::new(), "time itself is for bench");
    assert_eq!(what(&|s| s.phases += 1.0), Vec::<&str>::new(), "better is fine");
    let mut noisy = stored.clone();
    noisy.idle.p90 = now.idle.median - IDLE_MARGIN / 2.0;
    assert_eq!(now.grew(&noisy), [], "within the margin");
    noisy.idle = low;
    noisy.bytes /= 2.0;
    let grew = now.grew(&noisy);
    assert!(!grew[0].noisy && grew[0].to_string().starts_with("bytes per token grew from "), "{grew:?}");
    assert!(grew[1].noisy && grew[1].to_string().contains("% of the workers' time"), "{grew:?}");
}

#[test]
fn a_baseline_of_something_else_is_refused_with_the_reason() {
    let now = baseline();
    let differs = |key: &str, value: Value| {
        let mut stored = json!(now);
        stored[key] = value;
        now.unlike(&Summary::baseline(&stored.to_string()).unwrap()).join("; ")
    };
    assert!(differs("model_hash", json!("0123")).contains("(hash 0123) there"));
    assert_eq!(differs("device", json!("cuda")), "device is cpu here and cuda there");
    assert_eq!(differs("workers", json!(3)), "workers is 2 here and 3 there");
    assert_eq!(differs("path", json!("unfused")), "path is fused here and unfused there");
    assert_eq!(differs("kv_type", json!("f16")), "cache type is f32 here and f16 there");
    assert_eq!(differs("activations", json!("int8")), "rounding of activations is f32 here and int8 there");
    assert_eq!(differs("depth", json!(9)), "depth is 1 here and 9 there");
    assert_eq!(differs("tokens", json!(9)), "tokens is 8 here and 9 there");
    assert_eq!(differs("cpu", json!("another host")), "", "idle is a share: hosts are free");
    let few = traced(MOE, PathChoice::Fused, 1).summary();
    assert!(few.unlike(&few)[0].contains("1 tokens tell no spread"));

    for key in ["model", "phases_per_token", "idle_share", "workers"] {
        let mut stored = json!(now);
        stored.as_object_mut().unwrap().remove(key);
        assert!(Summary::baseline(&stored.to_string()).unwrap_err().contains(&format!("field `{key}`")));
    }
    assert!(Summary::baseline("{}").unwrap_err().contains("--save-baseline"));
    let mut stored = json!(now);
    stored["idle_share"]["p90"] = json!(-1);
    assert!(Summary::baseline(&stored.to_string()).is_err());
}

#[test]
fn the_picture_shows_both_paths_on_one_scale() {
    let [fused, unfused] = [PathChoice::Fused, PathChoice::Unfused].map(|path| traced(MOE, path, 3));
    let svg = picture(&[&fused, &unfused]);
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("a &lt;model&gt;") && !svg.contains("<model>"), "names are escaped");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    let count = |text: &str| svg.matches(text).count();
    assert_eq!((count(">fused<"), count(">unfused<")), (2, 2), "a whole token and one layer of each");
    for word in ["attention", "router", "experts", "head", "idle", "Whole token", "from the router"] {
        assert!(svg.contains(word), "{word}");
    }
    assert_eq!(count("<rect") + count("<text") + 1, count("/>") + count("</text>") + count("</svg>"));
    let numbers = svg.split("x=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
    assert!(numbers.into_iter().all(|x| (0.0..=1200.0).contains(&x)), "everything is on the canvas");
    assert!(
        picture(&[&traced("fixtures/llama-q4g64", PathChoice::Auto, 1)]).contains("mlp"),
        "dense models too"
    );
    let mut many = fused;
    many.tokens.iter_mut().for_each(|token| token.recording.lanes.resize(132, Vec::new()));
    assert!(!picture(&[&many]).contains("=\"-"), "as many workers as a GPU has");
}

#[test]
fn a_device_without_a_tracer_says_so() {
    let mut options = options(PathChoice::Auto, 1);
    options.load.device = Device::Reference;
    let error = capture(&folder(MOE), &options).unwrap_err().to_string();
    assert!(error.contains("reference") && error.contains("cannot record"), "{error}");
}

#[test]
fn overhead_runs_both_ways() {
    let found = overhead(&folder(MOE), &options(PathChoice::Auto, 2), 2).unwrap();
    assert!(found.on.median > 0.0 && found.off.median > 0.0);
    assert!(found.text().contains("recording adds"));
}

/// A recurrence cannot go back: positions that are decoded again follow all before them again.
#[test]
fn recurrent_models_are_captured_at_the_positions_asked_for() {
    let options = CaptureOptions { depth: 5, ..options(PathChoice::Auto, 20) };
    let dir = folder("fixtures/qwen3_next-q4g64");
    let positions: Vec<usize> =
        capture(&dir, &options).unwrap().tokens.iter().map(|token| token.position).collect();
    assert_eq!(positions, (5..25).collect::<Vec<_>>());
    overhead(&dir, &options, 2).unwrap();
}
