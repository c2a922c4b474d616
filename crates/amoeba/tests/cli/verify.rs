//! `amoeba verify`.
use serde_json::Value;

use crate::{copy, ran, repository};

const FIXTURE: &str = "fixtures/qwen3_moe-q4g64";

#[test]
fn a_fixture_passes_in_every_form() {
    let dir = repository(FIXTURE);
    let out = ran(&["verify", &dir]).expect(0, &[]).out;
    for part in ["qwen3_moe-q4g64: passed", "prefill logits", "moe output", "32 of 32 equal", "1 of 1 passed"]
    {
        assert!(out.contains(part), "`{part}` is not in:\n{out}");
    }
    let out = ran(&["verify", &dir, "--device", "reference", "--markdown"]).expect(0, &[]).out;
    let lines: Vec<&str> = out.lines().collect();
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| columns(line) == 10), "{out}");
    assert!(lines[2].contains("qwen3_moe-q4g64 | reference") && lines[2].contains(" % |"), "{out}");
}

#[test]
fn a_tampered_copy_fails_and_the_others_are_still_checked() {
    let folder = copy(FIXTURE);
    let path = folder.path().join("expected.json");
    let mut expected: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let token = expected["greedy_tokens"][3].as_u64().unwrap();
    expected["greedy_tokens"][3] = (token ^ 1).into();
    std::fs::write(&path, expected.to_string()).unwrap();
    let (bad, good) = (folder.path().to_str().unwrap().to_owned(), repository(FIXTURE));

    let ran_text =
        ran(&["verify", &bad, &good, "--path", "unfused"]).expect(1, &["1 of 2 folders did not pass"]);
    assert!(ran_text.out.contains(": FAILED") && ran_text.out.contains(": passed"), "{}", ran_text.out);
    assert!(
        ran_text.out.contains(&format!("token 3 is {token}, expected {}", token ^ 1)),
        "{}",
        ran_text.out
    );

    let ran_json = ran(&["verify", "--json", &bad, &good, "/no/such/folder"]).expect(3, &["/no/such/folder"]);
    let reports: Value = serde_json::from_str(&ran_json.out).unwrap();
    let passed: Vec<bool> =
        reports.as_array().unwrap().iter().map(|r| r["passed"].as_bool().unwrap()).collect();
    assert_eq!(passed, [false, true, false]);
    assert_eq!(reports[0]["divergence"]["index"], 3);
}

#[test]
fn a_wrong_number_is_noticed_and_placed() {
    let folder = copy(FIXTURE);
    let path = folder.path().join("expected.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let start = header["decode_logits"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[data + start + 3] ^= 0x40; // the exponent of the first logit
    std::fs::write(&path, bytes).unwrap();
    let out = ran(&["verify", folder.path().to_str().unwrap()]).expect(1, &[]).out;
    assert!(out.contains(": FAILED") && out.contains("<- token 0"), "{out}");
}
