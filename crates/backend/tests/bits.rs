//! Logits have the same bits whatever the threads, chunks, path and instruction set, and the path is the one asked for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{Cpu, CpuOptions, Executable, Limits, Row};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::simd::Isa;
use amoeba_plan::{PathChoice, PathKind, Plan};

const TOKENS: usize = 24;

fn logits(model: &str, threads: usize, chunk: usize, isa: Isa, path: PathChoice) -> Vec<u32> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model);
    let checkpoint = Arc::new(Checkpoint::open(&dir).unwrap());
    let plan = Plan::new(checkpoint.config()).unwrap();
    let limits = Limits { slots: 1, context: TOKENS, rows: chunk };
    let options = CpuOptions { threads: Some(threads), isa: Some(isa), path, limits };
    let mut cpu = Cpu::load(plan, &checkpoint, &options, &mut |_, _| {}).unwrap();
    let fused = path == PathChoice::Auto && chunk <= 8;
    assert_eq!(cpu.path(chunk).kind == PathKind::Fused, fused, "the path under test runs");
    let row = |i: usize| Row { token: (i * 37 % 400) as u32, slot: 0, position: i, logits: i + 1 == TOKENS };
    for start in (0..TOKENS).step_by(chunk) {
        let rows: Vec<Row> = (start..TOKENS.min(start + chunk)).map(row).collect();
        cpu.step(&rows, None).unwrap();
    }
    cpu.logits(0).iter().map(|x| x.to_bits()).collect()
}

#[test]
fn logits_depend_on_nothing_but_model_and_tokens() {
    for model in ["models/tiny-chat-moe-4bit", "fixtures/qwen2_moe-q4g64", "fixtures/qwen3_moe-mxfp4"] {
        let first = logits(model, 1, 1, Isa::best(), PathChoice::Auto);
        for (threads, chunk) in [(2, 1), (3, 5), (2, 8), (1, 9), (4, TOKENS)] {
            for path in [PathChoice::Auto, PathChoice::Unfused] {
                let other = logits(model, threads, chunk, Isa::best(), path);
                assert!(other == first, "{model}: {threads} threads, chunks of {chunk}, {path:?}");
            }
        }
        for isa in Isa::available() {
            assert!(logits(model, 2, 8, isa, PathChoice::Auto) == first, "{model} on {isa}");
        }
    }
}
