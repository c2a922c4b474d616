//! Snapshots of decode programs: what `inspect --plan` prints for real configurations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_checkpoint::{Checkpoint, Config};
use amoeba_plan::{Plan, WeightShape, family_names};

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn plan(dir: &str) -> Plan {
    Plan::new(&Config::read(&root().join(dir), "config.json").unwrap().unwrap()).unwrap()
}

#[test]
fn programs_print_as_recorded() {
    for fixture in
        "qwen3_moe-q4g64 qwen2_moe-q4g64 mixtral-q4g64-unstacked olmoe-q4g64 llama-q4g64 gpt_oss-mxfp4_q8 \
        qwen3_next-q4g64 gemma4-q4g64 gemma4-q4g64-per_layer deepseek_v2-q4g64 deepseek_v3-q4g64 \
        nemotron_h-q4g64-latent llama4-q4g64 lfm2_moe-q4g64 kimi_linear-q4g64 jamba-q4g64"
            .split_whitespace()
    {
        insta::assert_snapshot!(fixture, plan(&format!("fixtures/{fixture}")).to_string());
    }
}

#[test]
fn every_weight_of_every_fixture_is_there_in_the_expected_shape() {
    for entry in std::fs::read_dir(root().join("fixtures")).unwrap() {
        let dir = entry.unwrap().path();
        if dir.join("config.json").exists() {
            let checkpoint = Checkpoint::open(&dir).unwrap();
            let plan = Plan::of(&checkpoint).unwrap();
            let stored = plan.stored(&checkpoint).unwrap();
            assert_eq!(stored.len(), plan.weights.len());
            let total: usize = stored.iter().map(|stored| stored.bytes).sum();
            assert_eq!(total as u64, checkpoint.total_bytes(), "{}: every tensor is used", dir.display());
            assert_eq!(plan.notes(&checkpoint), [""; 0], "{}", dir.display());
        }
    }
}

#[test]
fn a_tied_head_is_one_weight() {
    let plan = plan("models/tiny-chat-moe-4bit");
    let tables = plan.weights.iter().filter(|weight| weight.shape == WeightShape::Matrix(8192, 320));
    assert_eq!(tables.count(), 1);
    assert_eq!(plan.parameters(), 29_538_624);
}

#[test]
fn the_table_names_its_families_in_order() {
    let names = family_names();
    assert!(names.is_sorted(), "{names:?}");
}
