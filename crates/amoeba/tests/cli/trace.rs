//! `trace` on small models: its files, its check with exit codes, its comparison. No time is asserted.
use std::path::Path;

use serde_json::Value;

use crate::{Ran, amoeba, repository};

const MOE: &str = "fixtures/qwen3_moe-q4g64";

/// Runs `trace` on two workers in a folder of its own.
fn trace(folder: &Path, model: &str, args: &[&str]) -> Ran {
    let model = repository(model);
    let args = [&["trace", &model, "-t", "2"], args].concat();
    Ran::new(amoeba(&args).current_dir(folder).output().unwrap())
}

fn json(file: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn a_token_is_written_and_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let out = trace(folder.path(), MOE, &[]).expect(0, &[]).out;
    for part in
        ["1 token: ", "worker 1: busy", "idle: ", "| experts fused |", "written: trace.json", "fused (1 of"]
    {
        assert!(out.contains(part), "`{part}` is not in:\n{out}");
    }
    let tokens = |value: &Value| {
        value["traceEvents"].as_array().unwrap().iter().filter(|event| event["cat"] == "token").count()
    };
    assert_eq!(tokens(&json(&folder.path().join("trace.json"))), 1);
    let args = ["-n", "3", "-d", "5", "-o", "t.json", "--svg", "t.svg", "--json", "--path", "unfused"];
    let out = trace(folder.path(), MOE, &args).expect(0, &[]).out;
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((summary["tokens"].as_u64(), summary["depth"].as_u64()), (Some(3), Some(5)));
    assert_eq!(
        (summary["path"].as_str(), summary["model"].as_str()),
        (Some("unfused"), Some("qwen3_moe-q4g64"))
    );
    assert_eq!(tokens(&json(&folder.path().join("t.json"))), 3);
    assert!(std::fs::read_to_string(folder.path().join("t.svg")).unwrap().starts_with("<svg"));
    let out = trace(folder.path(), MOE, &["--overhead", "-n", "1"]).expect(0, &[]).out;
    assert!(out.contains("recording adds"), "{out}");
}

#[test]
fn the_check_passes_fails_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let run = |model, args: &[&str]| trace(folder.path(), model, args);
    let base = folder.path().join("base.json");
    run(MOE, &["--save-baseline", "base.json", "-n", "8"]).expect(0, &[]);
    let good = json(&base);
    let doctored = |key: &str, value: Value| {
        let mut doctored = good.clone();
        doctored[key] = value;
        // What a busy machine makes of idle time is not at issue here.
        if key != "idle_share" {
            for idle in ["idle_share", "expert_idle_share"] {
                doctored[idle] = serde_json::json!({ "median": 1.0, "p10": 1.0, "p90": 1.0 });
            }
        }
        std::fs::write(&base, doctored.to_string()).unwrap();
        run(MOE, &["--baseline", "base.json", "--check"])
    };
    let ok = doctored("commit", "another".into()).expect(0, &[]);
    assert!(ok.out.contains("no worse than the baseline"), "{}", ok.out);
    let phases = good["phases_per_token"].as_f64().unwrap();
    doctored("phases_per_token", (phases - 1.0).into()).expect(1, &["phases per token grew from"]);
    doctored("bytes_per_token", 1.0.into()).expect(1, &["bytes per token grew from 1 to"]);
    // Any idle time is more than none; a machine without any would pass.
    let none = serde_json::json!({ "median": 0.0, "p10": 0.0, "p90": 0.0 });
    let idle = doctored("idle_share", none);
    assert!(idle.code == Some(0) || idle.err.contains("idle time grew from 0.0 %"), "{}", idle.err);
    doctored("model_hash", "0".into()).expect(2, &["the baseline is of something else: model is"]);
    doctored("path", "unfused".into()).expect(2, &["path is fused here and unfused there"]);
    doctored("workers", 7.into()).expect(2, &["workers is 2 here and 7 there"]);
    doctored("tokens", 3.into()).expect(2, &["base.json: has 3 tokens"]);
    std::fs::write(&base, good.to_string()).unwrap();
    let check = ["--baseline", "base.json", "--check"];
    run("fixtures/qwen2_moe-q4g64", &check).expect(2, &["something else: model is qwen2_moe-q4g64"]);
    run(MOE, &[&check[..], &["-d", "9"]].concat()).expect(2, &["depth is 9 here and 1 there"]);
    std::fs::write(&base, "{").unwrap();
    run(MOE, &check).expect(2, &["base.json: is not JSON"]);
    run(MOE, &["--baseline", "gone.json", "--check"]).expect(2, &["gone.json: cannot be read"]);
}

#[test]
fn two_paths_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let run = |model, args: &[&str]| trace(folder.path(), model, args);
    let out = run(MOE, &["--compare", "fused,unfused", "-n", "2", "-o", "both.json"]).expect(0, &[]).out;
    assert!(out.contains("written: trace.svg") && out.contains("of the time of unfused"), "{out}");
    assert!(std::fs::read_to_string(folder.path().join("trace.svg")).unwrap().contains(">unfused<"));
    let both = json(&folder.path().join("both.json"));
    let names =
        both["traceEvents"].as_array().unwrap().iter().filter(|event| event["name"] == "process_name");
    assert_eq!(names.count(), 2);
    run(MOE, &["--compare", "fused"]).expect(2, &["--compare fused,unfused"]);
    run(MOE, &["--compare", "fused,fused"]).expect(2, &["two different paths"]);
    run(MOE, &["--compare", "fused,unfused", "--path", "fused"]).expect(2, &["cannot be used with"]);
    run("fixtures/llama-q4g64", &["--compare", "fused,unfused"]).expect(2, &["no experts"]);
}

#[test]
fn wrong_usage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| trace(folder.path(), MOE, args);
    run(&["--check"]).expect(2, &["--baseline"]);
    run(&["--baseline", "x"]).expect(2, &["--check"]);
    run(&["-n", "0"]).expect(2, &["1..=4096"]);
    run(&["-d", "99999999"]).expect(2, &["context of"]);
    run(&["--device", "reference"]).expect(5, &["cannot record what a step does"]);
    run(&["-o", "/no/such/folder/t.json"]).expect(1, &["/no/such/folder/t.json: cannot be written"]);
    let help = run(&["--help"]).expect(0, &[]).out;
    for part in ["perfetto", "--save-baseline", "exit 1", "another model", "ranges"] {
        assert!(help.contains(part), "{part}");
    }
}

/// `compare` never starts a profiler of the system, so this runs everywhere.
#[cfg(unix)]
#[test]
fn the_script_writes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new("bash");
        command.arg(repository("scripts/capture_moe_decode_trace.sh")).args(args);
        command
            .env("AMOEBA", env!("CARGO_BIN_EXE_amoeba"))
            .env("ARGS", "-t 2 -n 2")
            .env("OUT", folder.path());
        Ran::new(command.output().unwrap())
    };
    let out = run(&[&repository(MOE), "compare"]).expect(0, &[]).out;
    assert!(out.contains("of the time of unfused"), "{out}");
    for file in ["compare.json", "compare.svg", "compare.md"] {
        assert!(folder.path().join(file).metadata().unwrap().len() > 0, "{file}");
    }
    run(&[]).expect(2, &["MODEL [auto|fused|unfused|compare]"]);
    run(&["model", "sideways"]).expect(2, &["MODEL [auto|fused|unfused|compare]"]);
}
