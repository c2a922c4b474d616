//! `inspect`, `doctor`, `list`, `completions`, `--version`.
use serde_json::Value;

use crate::{Ran, amoeba, copy, ran, repository};

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ran(args).expect(0, &[]).out).unwrap()
}

#[test]
fn inspect_shows_what_the_bundled_model_is() {
    let out = ran(&["inspect", &repository("models/tiny-chat-moe-4bit")]).expect(0, &[]).out;
    for part in [
        "qwen3_moe",
        "29.5 M, 11.8 M active per token",
        "16.6 MB in 1 file, 4.508 bits per parameter",
        "8, 8 with experts",
        "8192, head tied",
        "4 of 16 of width 192",
        "8 heads over 2 of width 64",
        "q4g64",
        "q8g64",
        "memory at 1024 positions",
        "it fits",
        "fused (1 of at most 8 rows)",
        "unfused (512 rows, fused takes 8)",
        "\"<|im_end|>\" (2)",
    ] {
        assert!(out.contains(part), "`{part}` is not in:\n{out}");
    }
}

#[test]
fn inspect_as_json_adds_up() {
    let model = repository("models/tiny-chat-moe-4bit");
    let facts = json(&["inspect", &model, "--json", "-c", "128"]);
    let sum =
        |list: &Value| list.as_array().unwrap().iter().map(|f| f["bytes"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum(&facts["weights"]["formats"]), facts["weights"]["bytes"].as_u64().unwrap());
    let parts = facts["bytes_per_token"]["parts"].as_object().unwrap();
    let total: f64 = parts.values().map(|part| part.as_f64().unwrap()).sum();
    assert!((total - facts["bytes_per_token"]["total"].as_f64().unwrap()).abs() < 8.0);
    assert_eq!(facts["memory"]["context"], 128);
    assert_eq!(facts["memory"]["fits"], true);
    assert_eq!(facts["weights"]["files"], 1);
    let tensors = json(&["inspect", &model, "--json", "--tensors"]);
    assert_eq!(sum(&tensors["tensors"]), facts["weights"]["bytes"].as_u64().unwrap());
    let plan = json(&["inspect", &model, "--json", "--plan"]);
    assert!(plan["plan"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains("experts")));
}

#[test]
fn inspect_lists_the_program_and_the_tensors_and_reads_them() {
    let out = ran(&["inspect", "--plan"]).expect(0, &[]).out;
    assert!(out.starts_with("embed\n") && out.contains("layer 7\n") && out.contains("kv_append"), "{out}");
    let out = ran(&["inspect", "--plan", "--device", "cuda"]).expect(0, &[]).out;
    assert!(out.contains("norm + 3 linear") && out.contains("fused: fused up, fused down"), "{out}");
    let out = ran(&["inspect", "--plan", "--device", "cpu", "--rows", "9"]).expect(0, &[]).out;
    assert!(out.contains("3 linear") && out.contains("unfused: gate+up, inner, down, combine"), "{out}");
    let out = ran(&["inspect", "--tensors"]).expect(0, &[]).out;
    assert!(out.contains("model.embed_tokens.weight") && out.contains("U32"), "{out}");
    let out = ran(&["inspect", "--check-tensors"]).expect(0, &[]).out;
    assert!(out.contains("every scale, bias and float is finite"), "{out}");
    ran(&["inspect", "--plan", "--tensors"]).expect(2, &["cannot be used with"]);
}

#[test]
fn a_cached_model_of_which_only_the_config_is_there_can_be_inspected() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("hub/models--org--big");
    let snapshot = root.join("snapshots/abc123");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(root.join("refs")).unwrap();
    std::fs::write(root.join("refs/main"), "abc123").unwrap();
    std::fs::copy(repository("fixtures/gemma4-q4g64/config.json"), snapshot.join("config.json")).unwrap();
    let ran = |args: &[&str]| Ran::new(amoeba(args).env("HF_HOME", home.path()).output().unwrap());
    let out = ran(&["inspect", "org/big"]).expect(0, &[]).out;
    for part in [
        "gemma4, as the text part of gemma4",
        "MISSING; about",
        "memory at",
        "2 of 8 experts",
        "1 of at most 8",
    ] {
        assert!(out.contains(part), "`{part}` is not in {out}");
    }
    ran(&["run", "org/big", "hi"]).expect(3, &["is not complete", "amoeba pull org/big"]);
}

#[test]
fn a_folder_with_a_config_alone_can_be_inspected() {
    let folder = copy("models/tiny-chat-moe-4bit");
    for file in ["model.safetensors", "model.safetensors.index.json", "tokenizer.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    let dir = folder.path().to_str().unwrap();
    let out = ran(&["inspect", dir]).expect(0, &[]).out;
    assert!(out.contains("MISSING; about 16.6 MB") && out.contains("tokenizer.json"), "{out}");
    let facts = json(&["inspect", dir, "--json"]);
    let whole = json(&["inspect", &repository("models/tiny-chat-moe-4bit"), "--json"]);
    assert_eq!(facts["weights"]["present"], false);
    assert_eq!(facts["weights"]["bytes"], whole["weights"]["bytes"]);
    assert_eq!(facts["parameters"], whole["parameters"]);
}

#[test]
fn every_fixture_can_be_inspected() {
    let mut seen = 0;
    for entry in std::fs::read_dir(repository("fixtures")).unwrap() {
        let dir = entry.unwrap().path();
        if dir.join("config.json").is_file() {
            let facts = json(&["inspect", dir.to_str().unwrap(), "--json"]);
            assert!(facts["bytes_per_token"]["total"].as_f64().unwrap() > 0.0);
            assert!(facts["text"]["error"].is_null(), "{}", facts["text"]);
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}

#[test]
fn the_machine_is_described_without_secrets() {
    let out = ran(&["doctor"]).expect(0, &[]).out;
    for part in ["version", "cores", "scalar", "model cache", "tiny-chat-moe-4bit"] {
        assert!(out.contains(part), "{out}");
    }
    let report = json(&["doctor", "--json"]);
    assert!(report["cpu"]["cores"].as_u64().unwrap() >= 1);
}

#[test]
fn an_empty_cache_lists_nothing() {
    assert!(ran(&["list"]).expect(0, &[]).out.contains("no models in /no/such/folder/hub"));
    assert_eq!(json(&["ls", "--json"]), serde_json::json!([]));
}

#[test]
fn completions_know_the_verbs_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let out = ran(&["completions", shell]).expect(0, &[]).out;
        assert!(out.contains("inspect") && out.contains("repeat-penalty"), "{shell}");
    }
}

#[test]
fn help_documents_the_exit_codes_and_the_version_is_told() {
    let out = ran(&["--help"]).expect(0, &[]).out;
    assert!(out.contains("Exit codes:") && out.contains("130 interrupted"), "{out}");
    assert!(!out.contains("perplexity"), "{out}");
    let out = ran(&["--version"]).expect(0, &[]).out;
    assert!(out.starts_with(&format!("amoeba {}", env!("CARGO_PKG_VERSION"))), "{out}");
    ran(&[]).expect(2, &["Usage:"]);
}
