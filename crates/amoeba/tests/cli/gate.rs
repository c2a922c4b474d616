//! `amoeba gate` on a fixture: verdicts, files, exit codes. Times are not judged.
use serde_json::Value;

use crate::{copy, ran, repository};

const FIXTURE: &str = "fixtures/qwen3_moe-q4g64";

#[test]
fn a_fixture_passes_and_the_report_is_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (page, json) = (file("report.md"), file("report.json"));
    let args = ["gate", &repository(FIXTURE), "--fast", "--no-bench", "-o", &page, "--json", &json];
    let out = ran(&args).expect(0, &[]).out;
    assert!(out.starts_with("# gate: qwen3_moe-q4g64 passed") && out.lines().count() < 60, "{out}");
    assert_eq!(std::fs::read_to_string(page).unwrap(), out);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let verdict = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap()["verdict"].as_str().unwrap()
    };
    for name in
        ["path: guard", "path: what ran", "error: op rms", "bits: threads", "parity: greedy", "trace: bytes"]
    {
        assert_eq!(verdict(name), "passed", "{name}");
    }
    assert_eq!(verdict("speed: fused / unfused time"), "skipped");
    assert_eq!(report["passed"], true);
}

#[test]
fn a_forced_fallback_fails_and_is_named() {
    let args = ["gate", &repository(FIXTURE), "--fast", "--no-bench", "--path", "unfused"];
    let out = ran(&args).expect(1, &["checks failed: path: guard, path: what ran"]).out;
    assert!(out.contains("FAILED") && out.contains("unfused (asked for)"), "{out}");
}

#[test]
fn a_record_may_take_the_place_of_the_other_side() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (text, record) = (file("text"), file("record"));
    std::fs::write(&text, "The moon is far away, and so is the sea. ".repeat(3)).unwrap();
    let model = repository(FIXTURE);
    ran(&["eval", &model, "--file", &text, "--window", "16", "--record", &record]).expect(0, &[]);
    let gate = |model: &str| ran(&["gate", model, "--fast", "--no-bench", "--against", &record]);
    let out = gate(&model).expect(0, &[]).out;
    assert!(out.contains("recorded") || out.contains("held against"), "{out}");
    // Another model, with the same vocabulary and with another one; a file that is none.
    gate(&repository("fixtures/qwen3_moe-q8g64")).expect(2, &["recorded from model"]);
    gate(&repository("models/tiny-chat-moe-4bit")).expect(2, &["vocabulary of 512, this model has 8192"]);
    ran(&["gate", &model, "--fast", "--no-bench", "--against", &text]).expect(6, &["not a record of logits"]);
    ran(&["gate", &model, "--fast", "--no-bench", "--against", "/no/such"]).expect(2, &["/no/such"]);
}

#[test]
fn what_cannot_be_judged_is_told() {
    // A folder without a tokenizer; one with damaged weights; nothing to write to.
    let folder = copy(FIXTURE);
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let out = ran(&["gate", folder.path().to_str().unwrap(), "--fast", "--no-bench"]);
    out.expect(0, &["has no tokenizer"]);
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    ran(&["gate", folder.path().to_str().unwrap()]).expect(6, &["model.safetensors"]);
    ran(&["gate", &repository(FIXTURE), "-o", "/no/such/folder/file"]).expect(1, &["cannot be written"]);
    ran(&["gate", "no-such-model-here"]).expect(3, &["no-such-model-here"]);
}
