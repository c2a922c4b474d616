//! `bench` on the bundled model with tiny sizes, its files, its floor and `compare`. No time is asserted.
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Ran, amoeba, repository};

/// Runs `bench` with a cache folder of its own.
fn bench(cache: &Path, args: &[&str]) -> Ran {
    Ran::new(amoeba(&[&["bench"], args].concat()).env("XDG_CACHE_HOME", cache).output().unwrap())
}

#[test]
fn rows_carry_facts_and_the_floor_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = bench(folder.path(), &["-p", "8", "-n", "4", "-r", "2", "-b", "1,2", "-t", "1,2", "--json"])
        .expect(0, &[])
        .out;
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let test = |row: &Value| format!("{} t{}", row["test"].as_str().unwrap(), row["threads"]);
    let tests: Vec<String> = rows.iter().map(test).collect();
    assert_eq!(tests, ["pp8 t1", "tg4 t1", "tg4x2 t1", "pp8 t2", "tg4 t2", "tg4x2 t2"]);
    for row in &rows {
        assert_eq!(row["model"], "tiny-chat-moe-4bit");
        assert_eq!(row["kv_type"], "f32");
        let sampling = if row["kind"] == "decode" { "host".into() } else { Value::Null };
        assert_eq!(row["sampling"], sampling);
        assert_eq!(row["samples_ns"].as_array().unwrap().len(), 2);
        assert!(row["untrusted"].is_string() && row["rustc"].as_str().unwrap().starts_with("rustc "));
        assert!(row["bandwidth_gb_s"].as_f64().unwrap() > 0.0 && row["int8_g_s"].as_f64().unwrap() > 0.0);
        assert!(row["formats"].as_array().unwrap().iter().any(|format| format == "q4g64"));
    }
    let kept: Vec<_> =
        fs::read_dir(folder.path().join("amoeba")).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let floor: Value = serde_json::from_str(&fs::read_to_string(&kept[0]).unwrap()).unwrap();
    assert_eq!(floor["compute"].as_array().unwrap().len(), 2);

    // Damaged, it is measured anew with a word; then it is whole again.
    fs::write(&kept[0], "{").unwrap();
    let again = ["-p", "0", "-n", "4", "-r", "2", "-t", "1"];
    bench(folder.path(), &again).expect(0, &["is not JSON", "measuring anew"]);
    let out = bench(folder.path(), &again).expect(0, &[]);
    assert!(out.err.is_empty() && out.out.contains("**untrusted: 2 repetitions**"), "{}{}", out.err, out.out);
}

#[test]
fn files_of_rows_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = repository("fixtures/qwen3_moe-q4g64");
    let run = |name: &str, args: &[&str]| {
        let args = [&[&model[..], "-r", "2", "-t", "1", "--output-file", name], args].concat();
        assert!(bench(folder.path(), &args).expect(0, &[]).out.contains("| path |"));
    };
    let (a, b, c, d) = (file("a.json"), file("b.jsonl"), file("c.json"), file("d.csv"));
    run(&a, &["-p", "8", "-n", "4", "-o", "json"]);
    run(&b, &["-p", "8", "-n", "4,2", "-o", "jsonl"]);
    run(&c, &["-p", "9", "-n", "0", "-o", "json"]);
    run(&d, &["-p", "9", "-n", "0", "-o", "csv"]);
    let out = bench(folder.path(), &["compare", &a, &b]).expect(0, &[]).out;
    assert!(out.contains("| pp8, threads 1 |") && out.contains("| tg4, threads 1 |"), "{out}");
    assert!(out.contains("second file, tg2, threads 1: tokens 2 here, 4 there"), "{out}");
    let none = bench(folder.path(), &["compare", &a, &c]).expect(1, &["no two rows can be compared"]);
    assert!(none.out.contains("first file, pp8, threads 1: tokens 8 here, 9 there"), "{}", none.out);
    bench(folder.path(), &["compare", &a, &d]).expect(2, &["d.csv", "line 1 is not JSON"]);
    bench(folder.path(), &["compare", &a, "/no/such/file"]).expect(2, &["/no/such/file: cannot be read"]);
    bench(folder.path(), &["compare", &a]).expect(2, &["B.json"]);
}

#[test]
fn a_run_and_its_file_give_the_same_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (rows, a, b) = (path("rows.json"), path("deep/a"), path("b"));
    let model = repository("fixtures/qwen3_moe-q4g64");
    let flags = "-p 8 -n 4 -d 0,16 -r 2 -t 2 -o json --output-file".split(' ');
    let run: Vec<&str> = [&model[..]].into_iter().chain(flags).chain([&rows[..]]).collect();
    let ran = bench(folder.path(), &[&run[..], &["--plot", &a]].concat()).expect(0, &["8 pictures"]);
    assert!(ran.out.contains("| ran on |"), "{}", ran.out);
    let listed = bench(folder.path(), &["plot", &rows, &b]).expect(0, &[]).out;
    let names = "depth-decode depth-prefill ops-decode ops-prefill roofline-pp8-t2 roofline-tg4-16-t2";
    for name in names.split(' ') {
        let read = |dir: &str| fs::read(Path::new(dir).join(format!("{name}.svg"))).unwrap();
        let picture = read(&b);
        assert!(read(&a) == picture && listed.contains(&format!("{name}.svg")), "{name}\n{listed}");
        assert!(picture.starts_with(b"<svg"));
    }
    bench(folder.path(), &["plot", &rows, &path("x.png")])
        .expect(2, &["x.png: name a folder", "ends in .svg"]);
    bench(folder.path(), &["plot", "/no/such/file", &b]).expect(2, &["/no/such/file: cannot be read"]);
    fs::write(path("other.json"), "{\"a\": 1}").unwrap();
    bench(folder.path(), &["plot", &path("other.json"), &b])
        .expect(2, &["other.json: a row has no `schema`"]);
    fs::write(path("none.json"), "[]").unwrap();
    bench(folder.path(), &["plot", &path("none.json"), &b]).expect(2, &["none.json: has no rows"]);
    bench(folder.path(), &["plot", &rows, &path("none.json/x")]).expect(1, &["none.json/x: cannot be made"]);
    bench(folder.path(), &["plot", &rows]).expect(2, &["DIR"]);
    bench(folder.path(), &["-n", "4", "--plot", &path("none.json/x")])
        .expect(1, &["none.json/x: cannot be made"]);
}

#[test]
fn wrong_usage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| bench(folder.path(), args);
    run(&["-p", "0", "-n", "0"]).expect(2, &["nothing to measure"]);
    run(&["-b", "0"]).expect(2, &["1.."]);
    run(&["-t", "1,0"]).expect(2, &["1..=1024"]);
    run(&["-o", "xml"]).expect(2, &["jsonl"]);
    run(&["--refresh"]).expect(2, &["--floor"]);
    run(&["model", "--floor"]).expect(2, &["cannot be used with"]);
    run(&["--plot", "x", "--floor"]).expect(2, &["cannot be used with"]);
    run(&["--floor", "-o", "csv"]).expect(2, &["-o json"]);
    run(&["no-such-model-here"]).expect(3, &["no-such-model-here"]);
    let big = run(&["-p", "0", "-n", "4", "-d", "99999999", "-t", "1"]);
    big.expect(2, &["context of"]);
    let none = run(&["-p", "8", "-n", "0", "-r", "1", "-t", "1", "--output-file", "/no/such/folder/file"]);
    none.expect(1, &["/no/such/folder/file: cannot be written"]);
    let help = run(&["--help"]).expect(0, &[]).out;
    for key in
        ["distinct_experts", "share_of_floor", "phases_per_step", "peak_memory_ratio", "compare", "op_times"]
    {
        assert!(help.contains(key), "{key}");
    }
}
