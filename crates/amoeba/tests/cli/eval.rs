//! `amoeba eval`: perplexity, records, and what is wrong with damaged or foreign ones.
use serde_json::Value;

use crate::{ran, repository};

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ran(args).expect(0, &[]).out).unwrap()
}

/// A folder with the beginning of the held-out text.
fn text(characters: usize) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(repository("models/tiny-chat-moe-valid.txt")).unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, text.chars().take(characters).collect::<String>()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

#[test]
fn perplexity_is_the_known_one_under_both_names() {
    let (_folder, file) = text(4000);
    let found = json(&["eval", "--file", &file, "--window", "256", "--json"]);
    let value = found["perplexity"].as_f64().unwrap();
    assert!((2.0..10.0).contains(&value) && found["tokens"].as_u64().unwrap() > 500, "{found}");
    assert_eq!(json(&["perplexity", "--file", &file, "--window", "256", "--json"])["perplexity"], value);
    let out = ran(&["eval", "--file", &file, "--tokens", "50", "--rows", "4"]).expect(0, &[]).out;
    assert!(out.contains("over 49 tokens") && out.contains("fused (4 of at most 8 rows)"), "{out}");
}

#[test]
fn every_path_is_close_to_what_was_recorded() {
    let (folder, file) = text(1200);
    let record = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (half, full) = (record("half"), record("full"));
    let args = ["eval", "--file", &file, "--window", "64", "--rows", "64", "--record"];
    ran(&[&args[..], &[&half]].concat()).expect(0, &["MB recorded"]);
    ran(&[&args[..], &[&full, "--record-type", "f32"]].concat()).expect(0, &["MB recorded"]);
    let against = |file: &str, args: &[&str]| {
        json(&[&["eval", "--json", "--against", file][..], args].concat())["recorded"].clone()
    };
    // The same bits on every path: what is left is the rounding of the subtraction.
    for args in
        [&[][..], &["--rows", "8"], &["--rows", "1", "-t", "1"], &["--isa", "scalar"], &["--path", "unfused"]]
    {
        let found = against(&full, args);
        assert!(found["kl_max"].as_f64().unwrap() < 1e-8 && found["same_top"] == 1.0, "{args:?} {found}");
    }
    let found = against(&half, &[]);
    assert!(found["kl_mean"].as_f64().unwrap() < 1e-6 && found["kl_max"].as_f64().unwrap() < 1e-4, "{found}");
    assert!(found["same_top"].as_f64().unwrap() > 0.99, "{found}");
    let text = ran(&["eval", "--against", &half]).expect(0, &[]).out;
    assert!(text.contains("by model the same") && text.contains("KL mean"), "{text}");
}

#[test]
fn damaged_and_foreign_records_are_refused() {
    let (folder, file) = text(300);
    let path = folder.path().join("record");
    let record = path.to_str().unwrap();
    let model = repository("fixtures/qwen3_moe-q4g64");
    ran(&["eval", &model, "--file", &file, "--window", "32", "--record", record]).expect(0, &[]);
    let good = std::fs::read(&path).unwrap();
    let against = || ran(&["eval", &model, "--against", record]);
    against().expect(0, &[]);
    let flip = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bad
    };
    let cases = [
        (flip(0), "not a record of logits"),
        (flip(8), "version 17"),
        (flip(12), "logits of 18 bytes"),
        (flip(16), "checksum"),
        (flip(24), "instead of"),
        (flip(28), "checksum"),
        (flip(38), "instead of"),
        (flip(45), "checksum"),
        (flip(50), "checksum"),
        (flip(good.len() - 1), "checksum"),
        (good[..good.len() - 1].to_vec(), "instead of"),
        ([&good[..], &[0]].concat(), "instead of"),
        (good[..20].to_vec(), "not a record of logits"),
        (Vec::new(), "not a record of logits"),
    ];
    for (bad, said) in cases {
        std::fs::write(&path, bad).unwrap();
        against().expect(6, &["record: ", said]);
    }
    std::fs::write(&path, &good).unwrap();
    ran(&["eval", "--against", record]).expect(2, &["vocabulary of 512, this model has 8192"]);
    // Another model of the same vocabulary is what records are for.
    let out = ran(&["eval", &repository("fixtures/qwen3_moe-mxfp4"), "--against", record]).expect(0, &[]).out;
    assert!(out.contains("by model ") && !out.contains("by model the same"), "{out}");
}

#[test]
fn wrong_usage_is_told() {
    let (folder, file) = text(300);
    ran(&["eval"]).expect(2, &["--file"]);
    ran(&["eval", "--file", "/no/such/file"]).expect(2, &["/no/such/file"]);
    ran(&["eval", "--against", "/no/such/file"]).expect(2, &["/no/such/file"]);
    ran(&["eval", "--file", &file, "--against", "x"]).expect(2, &["cannot be used with"]);
    ran(&["eval", "--file", &file, "--record-type", "f32"]).expect(2, &["--record"]);
    ran(&["eval", "--file", &file, "--tokens", "1"]).expect(2, &["2.."]);
    ran(&["eval", "--file", &file, "--record", "/no/such/folder/file"]).expect(1, &["cannot be written"]);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    ran(&["eval", "--file", empty.to_str().unwrap()]).expect(2, &["0 tokens long"]);
    ran(&["eval", "--file", &file, "--window", "99999999"]).expect(2, &["context of"]);
}
