//! `--device cuda` and `auto`, on a GPU that is not there: the fake driver and compiler of the CUDA backend's
//! tests.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../../../backend-cuda/tests/fake_cuda/mod.rs"]
mod fake_cuda;

use serde_json::Value;

use crate::{Ran, amoeba, repository};
use fake_cuda::Fake;

/// The program with the fake driver in its way.
fn on_fake(args: &[&str], settings: &[(&str, &str)]) -> Ran {
    let (fake, plain) = (Fake::build(), amoeba(args));
    let mut command = fake.command(plain.get_program());
    command.args(args).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // Compiled kernels are kept from run to run.
    command.env("XDG_CACHE_HOME", &fake.kernels).envs(settings.iter().copied());
    Ran::new(command.output().unwrap())
}

const NO_DEVICE: (&str, &str) = ("FAKE_CUDA_DEVICES", "0");

#[test]
fn fixtures_pass_on_the_device() {
    let fixtures = ["qwen3_moe-q4g64", "mixtral-q4g64", "gpt_oss-mxfp4_q8", "qwen3_next-q4g64"];
    let folders = fixtures.map(|name| repository(&format!("fixtures/{name}")));
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let ran = on_fake(&[&["verify", "--device", "cuda"], &folders[..]].concat(), &[]).expect(0, &[]);
    assert!(ran.out.contains("4 of 4 passed") && ran.out.contains("cuda:0 (fibers, sm_90a"), "{}", ran.out);
}

#[test]
fn the_device_draws_the_text_that_the_host_would() {
    let args = ["run", "Hello!", "-n", "10", "--device", "cuda", "--seed", "5", "--temp", "1.3"];
    let run = |last: &str, said: &[&str]| {
        let penalty = ["--repeat-penalty", "1.1", "--repeat-last-n", last];
        on_fake(&[&args[..], &penalty].concat(), &[]).expect(0, said).out
    };
    // Both windows hold everything; one of them is too long for the device.
    let drawn = run("1000", &["sampling on the device", "seed 5"]);
    assert_eq!(run("2000", &["sampling on the host (the repeat penalty looks back at 2000 tokens"]), drawn);
}

#[test]
fn without_a_device_there_is_one_line() {
    let dir = repository("fixtures/qwen3_moe-q4g64");
    for device in ["cuda", "cuda:1"] {
        let ran = on_fake(&["verify", &dir, "--device", device], &[NO_DEVICE]).expect(5, &["finds no GPU"]);
        assert_eq!(ran.err.lines().count(), 2, "the folder, and the sum: {}", ran.err);
    }
    let ran = on_fake(&["run", &dir, "-n", "1", "--device", "cuda", "x"], &[NO_DEVICE])
        .expect(5, &["--device cpu"]);
    assert_eq!((ran.err.lines().count(), ran.out.as_str()), (1, ""), "{}", ran.err);
    on_fake(&["verify", &dir, "--device", "cuda:1"], &[]).expect(5, &["no device cuda:1"]);
}

#[test]
fn auto_takes_the_device_if_there_is_one_that_takes_the_model() {
    let dir = repository("fixtures/qwen3_moe-q4g64");
    let verify =
        |settings: &[(&str, &str)], said: &[&str]| on_fake(&["verify", &dir], settings).expect(0, said);
    let log = tempfile::NamedTempFile::new().unwrap();
    let logged = [("FAKE_CUDA_LOG", log.path().to_str().unwrap())];
    assert!(verify(&logged, &[]).out.contains("cuda:0 (fibers"));
    let opened = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!(opened.lines().filter(|line| *line == "context").count(), 1, "the device is opened once");
    let without = verify(&[NO_DEVICE], &[]);
    assert!(without.out.contains("cpu (") && without.err.is_empty(), "{} {}", without.out, without.err);
    let small = verify(&[("FAKE_CUDA_MEMORY", "268800000")], &["running on the CPU", "too few"]);
    assert!(small.out.contains("cpu ("), "{}", small.out);
    let old = verify(&[("FAKE_CUDA_MAJOR", "7")], &["compute capability"]);
    assert!(old.out.contains("cpu ("), "{}", old.out);
    let rounded = on_fake(&["verify", &dir, "--activations", "int8"], &[]);
    assert!(rounded.err.contains("--activations int8 is not for a GPU"), "{}", rounded.err);
}

#[test]
fn what_is_for_the_cpu_is_refused_on_the_device() {
    let dir = repository("fixtures/qwen3_moe-q4g64");
    on_fake(&["verify", &dir, "--device", "cuda", "--activations", "int8"], &[])
        .expect(2, &["not for a GPU, which has f32 and f16"]);
    let small = [("FAKE_CUDA_MEMORY", "268800000")];
    on_fake(&["run", &dir, "x", "--device", "cuda"], &small).expect(4, &["cuda:0 (fibers", "too few", "-c"]);
}

/// Little enough for the floor to be measured in no time.
const SMALL: (&str, &str) = ("FAKE_CUDA_MEMORY", "300000000");

#[test]
fn a_trace_names_every_launch() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (dir, perfetto, picture) =
        (repository("fixtures/qwen3_moe-q4g64"), file("trace.json"), file("trace.svg"));
    let args = ["trace", &dir, "--device", "cuda", "-n", "2", "-d", "3", "-o", &perfetto];
    let out = on_fake(&args, &[]).expect(0, &[]).out;
    for part in [
        "| norm+q_proj+k_proj+v_proj |",
        "| norm+rope+kv_append+attention |",
        "| router+experts fused up |",
        "| experts fused down+add |",
        "| norm+lm_head |",
        "| (check) |",
        "\ngpu: busy ",
    ] {
        assert!(out.contains(part), "`{part}` is not in:\n{out}");
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&perfetto).unwrap()).unwrap();
    let events = written["traceEvents"].as_array().unwrap();
    assert!(events.iter().any(|event| event["args"]["name"] == "gpu"));
    let args =
        ["trace", &dir, "--device", "cuda", "--compare", "fused,unfused", "-n", "1", "--svg", &picture];
    let out = on_fake(&args, &[]).expect(0, &[]).out;
    assert!(out.contains("| q_proj |") && out.contains("| experts gate+up |"), "{out}");
    assert!(std::fs::read_to_string(picture).unwrap().starts_with("<svg"));
}

#[test]
fn the_gate_judges_what_runs_on_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json").to_str().unwrap().to_owned();
    let dir = repository("fixtures/qwen3_moe-q4g64");
    let args = ["gate", &dir, "--device", "cuda", "--fast", "--no-bench", "--json", &json];
    on_fake(&args, &[]).expect(0, &[]);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    for name in ["path: what ran", "error: op rms", "error: block rms", "bits: company", "trace: phases"] {
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["verdict"], "passed", "{check}");
    }
}

#[test]
fn a_bench_is_held_against_what_the_device_does_at_best() {
    let dir = repository("fixtures/qwen3_moe-q4g64");
    let args =
        ["bench", &dir, "--device", "cuda", "-p", "4", "-n", "2", "-b", "1,2", "-r", "1", "-o", "json"];
    let rows: Value = serde_json::from_str(&on_fake(&args, &[SMALL]).expect(0, &[]).out).unwrap();
    assert!(rows[1]["phases_per_step"].as_f64().unwrap() > 1.0, "{}", rows[1]);
    let sampling: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row["sampling"]).collect();
    assert_eq!(sampling, [&Value::Null, &"device".into(), &"device".into()]);
    let floor = on_fake(&["bench", "--floor", "--device", "cuda"], &[SMALL]).expect(0, &[]).out;
    for row in ["reads of ", "the same, overlapping, ns | ", "barrier to barrier of the grid, ns | "] {
        assert!(floor.contains(&format!("| {row}")), "{floor}");
    }
}

#[test]
fn a_bench_says_where_tokens_are_drawn() {
    // A model with a recurrence waits for each token.
    for (model, how) in
        [("qwen3_moe-q4g64", "runs one step ahead"), ("qwen3_next-q4g64", "waits for the host")]
    {
        let dir = repository(&format!("fixtures/{model}"));
        let args =
            ["bench", &dir, "--device", "cuda", "-p", "0", "-n", "1,3", "-b", "1,2", "-d", "5", "-r", "1"];
        let out = on_fake(&args, &[SMALL]).expect(0, &[]).out;
        assert!(out.contains("tg1@5, tg1x2@5, tg3@5, tg3x2@5: the device draws"), "{out}");
        assert!(out.contains(how), "{out}");
    }
}

#[test]
fn doctor_tells_what_there_is() {
    let json = |settings: &[(&str, &str)]| -> Value {
        let text = on_fake(&["doctor", "--json"], settings).expect(0, &[]).out;
        serde_json::from_str::<Value>(&text).unwrap()["cuda"].clone()
    };
    let found = json(&[("FAKE_CUDA_DEVICES", "2")]);
    assert_eq!((found["driver"].as_str(), found["nvrtc"].as_str()), (Some("13.0"), Some("13.0")));
    assert_eq!(found["devices"][1]["arch"], "sm_90a");
    assert!(json(&[NO_DEVICE])["missing"].as_str().unwrap().contains("finds no GPU"));
    let text = on_fake(&["doctor"], &[]).expect(0, &[]).out;
    assert!(
        text.contains("cuda:0 fibers (sm_90a")
            && text.contains("launches overlap")
            && text.contains("NVRTC 13.0"),
        "{text}"
    );
    let text = on_fake(&["doctor"], &[NO_DEVICE]).expect(0, &[]).out;
    assert!(text.contains("none: the NVIDIA driver finds no GPU"), "{text}");
}
