//! `bench`: what rows say, which rows may be compared, what a damaged floor cache does. No test asserts a
//! time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use amoeba_backend::KvType;
use amoeba_engine::{Device, LoadOptions};
use amoeba_harness::bench::*;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn decode(tokens: usize, depth: usize, batch: usize) -> Test {
    Test { kind: Kind::Decode, tokens, depth, batch }
}

const PREFILL: Test = Test { kind: Kind::Prefill, tokens: 8, depth: 0, batch: 1 };

fn host() -> Host {
    Host { cpu: "Some (R) CPU @ 2".to_owned(), cores: 2, isa: "avx2".to_owned(), os: "linux".to_owned() }
}

fn options(device: Device, tests: &[Test]) -> BenchOptions {
    BenchOptions {
        name: "model".to_owned(),
        tests: tests.to_vec(),
        repeats: 2,
        load: LoadOptions { device, ..LoadOptions::default() },
        threads: 2,
        build: Build { version: "1.2.3".to_owned(), ..Build::default() },
        host: host(),
        peak_memory: || Some(1 << 20),
        others: || None,
        clock: || Some(3000.0),
    }
}

fn rows(name: &str, device: Device, tests: &[Test]) -> Vec<BenchRow> {
    let mut rows = bench(&fixture(name), &options(device, tests)).unwrap();
    let (threads, quick, other_cores) = (2, false, None);
    let read = Bandwidth { threads, mib: 16, gb_s: 10.0, best_gb_s: 10.0, quick, other_cores };
    let (f32_g_s, int8_g_s, amx_g_s) = (100.0, 400.0, Some(4000.0));
    let rates = Compute { threads, f32_g_s, int8_g_s, amx_g_s, quick, other_cores };
    rows.iter_mut().for_each(|row| row.hold_against(&read, Some(&rates)));
    rows
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Programs read these: a key that goes or is renamed is a new schema.
const KEYS: &str = "\
    achieved_gb_s activations amx_g_s bandwidth_gb_s bandwidth_mib batch bytes_per_token \
    bytes_per_token_parts clock_mhz commit cores cpu depth device device_detail dirty distinct_experts \
    execute_ns_per_step f32_g_s first_token_ms floor_other_cores formats host_ns_per_step int8_g_s isa \
    isa_ran kind kv_type load_ms median_ns memory_bytes model model_bytes model_hash op_times os other_cores \
    p10_ns p90_ns path path_reason peak_memory_bytes peak_memory_ratio phases_per_step plain_reads_gb_s \
    products_g_s repeats rows_per_step rustc samples_ns sampling schema share_of_f32 share_of_floor \
    share_of_int8 share_of_plain_reads spread step_ns test threads tok_s_median tokens untrusted version \
    warmups";

#[test]
fn rows_have_one_shape_and_add_up() {
    let tests = [PREFILL, decode(4, 0, 1), decode(4, 3, 2)];
    for row in rows("qwen3_moe-q4g64", Device::Cpu, &tests) {
        let value = json!(row);
        assert_eq!(keys(&value), KEYS.split_whitespace().collect::<Vec<_>>());
        assert_eq!(parse_rows(&value.to_string()).unwrap().len(), 1);
        assert_eq!(json!(serde_json::from_value::<BenchRow>(value.clone()).unwrap()), value);
        assert_eq!(value["schema"], 4);
        assert_eq!(value["clock_mhz"], 3000.0);
        let ops = row.op_times.as_ref().unwrap();
        assert!(row.host_ns_per_step > Some(0.0) && row.step_ns > Some(0.0), "{row:?}");
        let ran = |op: &&str| ops.get(op).is_some_and(|time| time.wall_ns > Some(0.0));
        assert!(["experts", "attention", "lm_head", "router"].iter().all(ran), "{ops:?}");
        assert!(ops.0.last().is_some_and(|(name, _)| name == "idle"));
        assert_eq!(value["samples_ns"].as_array().unwrap().len(), 2);
        assert_eq!(value["untrusted"], "2 repetitions");
        assert_eq!(value["peak_memory_bytes"], 1 << 20);
        assert!(value["phases_per_step"].as_f64().unwrap() >= 1.0);
        if row.kind == Kind::Prefill {
            assert!(value["achieved_gb_s"].is_null() && value["bytes_per_token_parts"].is_null());
            assert!(value["share_of_int8"].as_f64().unwrap() > 0.0);
        } else {
            let parts = value["bytes_per_token_parts"].as_object().unwrap();
            let sum: f64 = parts.values().map(|bytes| bytes.as_f64().unwrap()).sum();
            assert!((sum / value["bytes_per_token"].as_f64().unwrap() - 1.0).abs() < 1e-9);
            assert!(["experts", "attention", "head", "kv", "router"].iter().all(|part| parts[*part] != 0.0));
            assert!(value["share_of_floor"].as_f64().unwrap() > 0.0 && value["products_g_s"].is_null());
            // The ops together read what the row says, but for positions: only the first steps were recorded.
            let ops: f64 = ops.0.iter().filter_map(|(_, op)| op.bytes).sum();
            let all = row.bytes_per_token.unwrap() * row.batch as f64;
            assert!((ops / all - 1.0).abs() < 0.02, "{ops} {all}");
            assert_eq!(value["plain_reads_gb_s"].as_array().unwrap().len(), 2, "one for each repetition");
            assert!(value["share_of_plain_reads"].as_f64().unwrap() > 0.0);
        }
    }
}

#[test]
fn several_rows_share_experts_and_weights() {
    let tests = [decode(6, 0, 1), decode(6, 0, 4)];
    let cpu = rows("qwen3_moe-q4g64", Device::Cpu, &tests);
    let reference = rows("qwen3_moe-q4g64", Device::Reference, &tests);
    let (experts, top_k) = (8.0, 2.0);
    let distinct = |row: &BenchRow| row.distinct_experts.unwrap();
    assert_eq!(distinct(&cpu[0]), top_k);
    assert!(distinct(&cpu[1]) > top_k && distinct(&cpu[1]) <= experts);
    assert_eq!(distinct(&cpu[1]), distinct(&reference[1]), "the reference counts the same");
    // Per token: four sequences share what is read once.
    let parts = |row: &BenchRow| row.bytes_per_token_parts.unwrap();
    let [one, four] = [parts(&cpu[0]), parts(&cpu[1])];
    assert_eq!((one.attention, one.head, one.kv), (4.0 * four.attention, 4.0 * four.head, four.kv));
    let more = distinct(&cpu[1]) / top_k;
    assert!((4.0 * four.experts / one.experts - more).abs() < 1e-9);
    assert_eq!((reference[0].threads, reference[0].phases_per_step), (1, None));
    let mut options = options(Device::Cpu, &tests);
    options.load.kv = KvType::F16;
    let halves = &bench(&fixture("qwen3_moe-q4g64"), &options).unwrap()[0];
    assert_eq!((2.0 * parts(halves).kv, halves.kv_type.as_str()), (one.kv, "f16"));
}

#[test]
fn a_dense_model_has_no_experts_to_count() {
    let [row] = &rows("llama-q4g64", Device::Cpu, &[decode(2, 0, 2)])[..] else { panic!("one row") };
    let reads = row.bytes_per_token_parts.unwrap();
    assert!(row.distinct_experts.is_none() && reads.experts == 0.0 && reads.mlp > 0.0);
    assert_eq!(row.path, "unfused");
}

#[test]
fn a_batch_decodes_what_each_sequence_alone_would() {
    // Different depths and batches in one load must not disturb each other: every step is checked for finite
    // logits, and the context holds the longest test.
    let tests = [decode(3, 9, 3), decode(3, 0, 1), PREFILL, decode(2, 1, 8)];
    assert_eq!(rows("mixtral-q4g64", Device::Cpu, &tests).len(), 4);
    let too_long = bench(&fixture("mixtral-q4g64"), &options(Device::Cpu, &[decode(1 << 30, 0, 1)]));
    assert!(too_long.unwrap_err().to_string().contains("context"));
}

#[test]
fn tables_have_a_cell_for_every_column() {
    let rows = rows("qwen3_moe-q4g64", Device::Cpu, &[PREFILL, decode(2, 0, 1)]);
    let text = markdown(&rows);
    let table: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(table.len(), 4, "{text}");
    assert!(table.iter().all(|line| line.matches('|').count() == 16), "{text}");
    assert!(text.contains("untrusted: 2 repetitions") && text.contains("q4g64"), "{text}");
    let text = csv(&rows);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3);
    // The only cells with commas of their own are quoted, and there are as many of them in every row.
    assert!(
        lines[0].contains(&"bytes_per_token_parts.experts") && !lines[0].contains(&"bytes_per_token_parts")
    );
    assert_eq!(lines[1].len(), lines[2].len(), "{text}");
}

fn row(changes: &[(&str, Value)]) -> BenchRow {
    let mut row = json!({
        "schema": 4, "cpu": "x", "cores": 2, "isa": "avx2", "os": "linux", "model_hash": "a", "device": "cpu",
        "threads": 2, "kind": "decode", "tokens": 128, "depth": 0, "batch": 1, "test": "tg128",
        "untrusted": null,
        "p10_ns": 90.0, "p90_ns": 110.0, "tok_s_median": 100.0, "path": "fused", "commit": "1", "rustc": "r",
        "device_detail": "cpu",
    });
    changes.iter().for_each(|(key, value)| row[*key] = value.clone());
    serde_json::from_value(row).unwrap()
}

#[test]
fn like_rows_are_paired_whatever_a_change_may_change() {
    let faster = row(&[
        ("commit", json!("2")),
        ("path", json!("unfused")),
        ("tok_s_median", json!(150.0)),
        ("p10_ns", json!(60.0)),
        ("p90_ns", json!(70.0)),
        ("untrusted", json!("spread 9.0 %")),
    ]);
    let found = compare(&[row(&[])], &[row(&[("tokens", json!(64))]), faster]);
    let [pair] = &found.pairs[..] else { panic!("{found:?}") };
    assert_eq!(pair.ratio(), 1.5);
    assert_eq!(pair.notes, ["second is untrusted: spread 9.0 %", "fused → unfused"]);
    assert_eq!(found.refused.len(), 1);
    assert!(found.markdown().contains("| tg128, threads 2 | 100.0 | 150.0 | 1.500 |"));
    let same = compare(&[row(&[])], &[row(&[])]);
    assert_eq!(same.pairs[0].notes, ["within the spread"]);
    // A row of before tokens could be drawn elsewhere does not say where they were.
    let drawn = compare(&[row(&[])], &[row(&[("sampling", json!("device"))])]);
    assert_eq!(drawn.pairs[0].notes, ["within the spread", "tokens drawn: host → device"]);
}

#[test]
fn unlike_rows_are_refused_with_the_reason() {
    let cases = [
        ("schema", json!(2), "schema 4 here, 2 there"),
        ("cpu", json!("y"), "cpu \"x\" here, \"y\" there"),
        ("cores", json!(4), "cores 2 here, 4 there"),
        ("isa", json!("avx512"), "isa \"avx2\" here, \"avx512\" there"),
        ("os", json!("macos"), "os \"linux\" here"),
        ("model_hash", json!("b"), "model hash \"a\" here, \"b\" there"),
        ("device", json!("reference"), "device \"cpu\" here"),
        ("threads", json!(1), "threads 2 here, 1 there"),
        ("kind", json!("prefill"), "kind \"decode\" here"),
        ("tokens", json!(64), "tokens 128 here, 64 there"),
        ("depth", json!(9), "depth 0 here, 9 there"),
        ("batch", json!(4), "batch 1 here, 4 there"),
    ];
    for (key, value, reason) in cases {
        let found = compare(&[row(&[])], &[row(&[(key, value)])]);
        assert!(found.pairs.is_empty(), "{key}");
        assert_eq!(found.refused.len(), 2, "{key}");
        assert!(found.refused[0].starts_with("first file, tg128, threads 2: "), "{found:?}");
        assert!(found.refused[0].contains(reason), "{found:?}");
    }
    let lonely = compare(&[row(&[]), row(&[])], &[row(&[])]);
    assert!(lonely.refused[0].contains("the other file has fewer of them"), "{lonely:?}");
    assert!(compare(&[row(&[])], &[]).refused[0].contains("the other file has no rows"));
}

#[test]
fn rows_are_read_as_a_list_or_by_line() {
    let (mut one, two) = (json!(row(&[])), json!(row(&[("threads", json!(1))])));
    let list = format!("{:#}", json!([one, two]));
    assert_eq!(parse_rows(&list).unwrap().len(), 2);
    let lines = parse_rows(&format!("{one}\n\n{two}\n")).unwrap();
    assert_eq!(lines.iter().map(|row| json!(row)).collect::<Vec<_>>(), [one.clone(), two]);
    assert_eq!(parse_rows(&one.to_string()).unwrap().len(), 1);
    assert_eq!(parse_rows("").unwrap().len(), 0);
    assert!(parse_rows(&format!("{one}\nnonsense")).unwrap_err().contains("line 2 is not JSON"));
    for wrong in [Value::Null, json!(1)] {
        one["model_hash"] = wrong;
        assert!(parse_rows(&one.to_string()).unwrap_err().contains("no `model_hash`"));
    }
    assert!(parse_rows("[1]").unwrap_err().contains("no `schema`"));
}

#[test]
fn the_hash_tells_models_and_their_weights_apart() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hash");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(fixture("qwen3_moe-q4g64")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let hash = |dir: &Path| {
        let checkpoint = amoeba_engine::open(dir).unwrap();
        let plan = amoeba_plan::Plan::of(&checkpoint).unwrap();
        BenchModel::new("", &checkpoint, &plan).unwrap().hash
    };
    let same = hash(&fixture("qwen3_moe-q4g64"));
    assert_eq!(same, hash(&folder), "the folder's name is not part of it");
    assert!(
        same.len() == 16
            && same != hash(&fixture("qwen3_moe-q8g64"))
            && same != hash(&fixture("qwen3_moe-q4g32"))
    );
    // Other weights in the same shapes: the last byte of the file is the last of some tensor.
    let file = folder.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_ne!(same, hash(&folder));
}

#[test]
fn a_floor_is_kept_and_a_damaged_one_is_told() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("floor");
    let _ = fs::remove_dir_all(&folder);
    let build = Build { version: "1.2.3".to_owned(), ..Build::default() };
    let cache = FloorCache::new(&folder.join("deep"), &host(), &build);
    assert!(cache.file().ends_with("deep/floor-some-r-cpu-2-2c-1.2.3.json"), "{cache:?}");
    assert_eq!(cache.load(), Ok(None));
    let (threads, quick, mib, amx_g_s) = (1, true, 16, None);
    let read = Bandwidth { threads, mib, gb_s: 20.0, best_gb_s: 30.0, quick, other_cores: None };
    let other_cores = Some(1.0);
    let compute = Compute { threads, f32_g_s: 100.0, int8_g_s: 400.0, amx_g_s, quick, other_cores };
    let isa = "avx2".to_owned();
    let floor = Floor { isa, read: vec![read], compute: vec![compute], ..Floor::default() };
    cache.store(&floor).unwrap();
    cache.store(&floor).unwrap();
    assert_eq!(cache.load(), Ok(Some(floor)));
    let left: Vec<_> = fs::read_dir(folder.join("deep")).unwrap().collect();
    assert_eq!(left.len(), 1, "no half-written file stays: {left:?}");
    let whole = fs::read_to_string(cache.file()).unwrap();
    let damages = [
        (String::new(), "is not JSON"),
        (whole[..whole.len() / 2].to_owned(), "is not JSON"),
        ("{}".to_owned(), "another machine"),
        (whole.replace("1.2.3", "1.2.4"), "another machine or version"),
        (whole.replace("20.0", "-1"), "impossible figures"),
        (whole.replace("\"mib\": 16", "\"mib\": 18446744073709551615"), "impossible figures"),
        (whole.replace("\"amx_g_s\"", "\"max\""), "missing field `amx_g_s`"),
    ];
    for (text, said) in damages {
        assert_ne!(text, whole);
        fs::write(cache.file(), text).unwrap();
        let fault = cache.load().unwrap_err();
        assert!(fault.contains(said) && fault.lines().count() == 1, "{fault}");
    }
    fs::write(cache.file(), [0xff, 0xfe]).unwrap();
    assert!(cache.load().unwrap_err().contains("cannot be read"));
    let file = folder.join("a file");
    fs::write(&file, "").unwrap();
    assert!(FloorCache::new(&file, &host(), &build).store(&Floor::default()).is_err());
}

#[test]
fn recurrent_models_are_measured_at_any_depth() {
    let tests = [PREFILL, Test { depth: 5, ..PREFILL }, decode(4, 0, 1), decode(4, 9, 2)];
    for row in rows("nemotron_h-q4g64", Device::Cpu, &tests) {
        assert!(row.samples_ns.len() == 2 && row.op_times.is_some(), "{}", row.test);
        assert!(row.bytes_per_token_parts.is_none_or(|reads| reads.state > 0.0), "{}", row.test);
    }
}
