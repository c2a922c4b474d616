//! Logits have the same bits whatever the threads, chunks, path and instruction set, and the path is the one
//! asked for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{Activations, Cpu, Executable, KvType, Limits, LoadOptions, Row};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::simd::Isa;
use amoeba_plan::{FEW_ROWS_MAX, PathChoice, PathKind, Plan};

mod common;

const TOKENS: usize = 24;

/// One run of the model: tokens, threads, rows per step and what the caches hold.
#[derive(Clone, Copy)]
struct Run {
    tokens: usize,
    threads: usize,
    chunk: usize,
    kv: KvType,
    activations: Activations,
}

/// All tokens with the default precision.
const EXACT: Run =
    Run { tokens: TOKENS, threads: 1, chunk: 1, kv: KvType::F32, activations: Activations::F32 };

fn logits(model: &str, threads: usize, chunk: usize, isa: Isa, path: PathChoice) -> Vec<u32> {
    run(model, Run { threads, chunk, ..EXACT }, isa, path)
}

fn run(model: &str, run: Run, isa: Isa, path: PathChoice) -> Vec<u32> {
    let checkpoint = open(model);
    run_plan(Plan::of(&checkpoint).unwrap(), &checkpoint, run, isa, path)
}

fn open(model: &str) -> Arc<Checkpoint> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model);
    Arc::new(Checkpoint::open(&dir).unwrap())
}

fn run_plan(plan: Plan, checkpoint: &Arc<Checkpoint>, run: Run, isa: Isa, path: PathChoice) -> Vec<u32> {
    let Run { tokens, threads, chunk, kv, activations } = run;
    let limits = Limits { slots: 1, context: tokens, rows: chunk };
    let options = LoadOptions { isa: Some(isa), path, kv, activations, ..common::options(threads, limits) };
    let mut cpu = Cpu::load(plan, checkpoint, &options, &mut |_, _| {}).unwrap();
    let fused = path == PathChoice::Auto && chunk <= FEW_ROWS_MAX;
    assert_eq!(cpu.describe().contains("f16 cache"), kv == KvType::F16, "{}", cpu.describe());
    let rounded = activations != Activations::F32;
    assert_eq!(cpu.describe().contains(&format!("{activations} activations")), rounded, "{}", cpu.describe());
    assert_eq!(cpu.path(chunk).kind == PathKind::Fused, fused, "the path under test runs");
    let row = |i: usize| Row { token: (i * 37 % 400) as u32, slot: 0, position: i, logits: i + 1 == tokens };
    for start in (0..tokens).step_by(chunk) {
        let rows: Vec<Row> = (start..tokens.min(start + chunk)).map(row).collect();
        cpu.step(&rows, None).unwrap();
    }
    cpu.logits(0).iter().map(|x| x.to_bits()).collect()
}

#[test]
fn logits_depend_on_nothing_but_model_and_tokens() {
    for model in [
        "models/tiny-chat-moe-4bit",
        "fixtures/qwen2_moe-q4g64",
        "fixtures/qwen3_moe-mxfp4",
        "fixtures/deepseek_v3-q4g64",
        "fixtures/gemma4-q4g64",
        "fixtures/llama4-q4g64",
    ] {
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

/// Fewer digits are a choice of precision, not of path: the same bits however the work is done.
#[test]
fn rounded_activations_have_the_same_bits_however_the_work_is_done() {
    for model in ["models/tiny-chat-moe-4bit", "fixtures/qwen3_moe-mxfp4"] {
        let exact = logits(model, 1, TOKENS, Isa::best(), PathChoice::Auto);
        let mut last = 0.0;
        for activations in [Activations::Int16, Activations::Int8] {
            let with = |threads, chunk, isa| {
                run(model, Run { threads, chunk, activations, ..EXACT }, isa, PathChoice::Auto)
            };
            let first = with(1, 1, Isa::best());
            for isa in Isa::available() {
                for (threads, chunk) in [(2, 5), (1, TOKENS)] {
                    let same = with(threads, chunk, isa) == first;
                    assert!(same, "{model}, {activations}: {threads} threads, {chunk} rows, {isa}");
                }
            }
            let off = exact.iter().zip(&first).map(|(&a, &b)| (f32::from_bits(a) - f32::from_bits(b)).abs());
            let off = off.fold(0.0, f32::max);
            println!("{model}, {activations}: logits off by {off:e}");
            assert!(off > last && off < 2.0, "{model}: {activations} moves logits by {off}");
            last = off;
        }
    }
}

/// Also where routers keep more digits of x than other products: what is a router is no matter of names.
#[test]
fn names_of_buffers_do_not_matter() {
    for model in ["fixtures/qwen2_moe-q4g64", "fixtures/gemma4-q4g64", "fixtures/kimi_linear-q4g64"] {
        let checkpoint = open(model);
        let plan = Plan::of(&checkpoint).unwrap();
        let mut renamed = plan.clone();
        renamed.buffers.iter_mut().for_each(|buffer| buffer.name = "b");
        let how = Run { activations: Activations::Int8, chunk: 5, threads: 2, ..EXACT };
        let [first, other] =
            [plan, renamed].map(|plan| run_plan(plan, &checkpoint, how, Isa::best(), PathChoice::Auto));
        assert!(first == other, "{model}");
    }
}

/// More than two chunks of attention, shared out by position at one row and by blocks of rows at many.
#[test]
fn long_contexts_have_the_same_bits_however_they_are_shared_out() {
    let model = "models/tiny-chat-moe-4bit";
    let logits = |threads, chunk, kv| {
        run(model, Run { tokens: 600, threads, chunk, kv, ..EXACT }, Isa::best(), PathChoice::Unfused)
    };
    for kv in [KvType::F32, KvType::F16] {
        let first = logits(1, 600, kv);
        for (threads, chunk) in [(3, 1), (2, 7), (4, 100)] {
            assert!(logits(threads, chunk, kv) == first, "{threads} threads, chunks of {chunk}, {kv}");
        }
    }
    let floats = |kv| logits(2, 600, kv).into_iter().map(f32::from_bits).collect::<Vec<_>>();
    let (exact, half) = (floats(KvType::F32), floats(KvType::F16));
    let off = exact.iter().zip(&half).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(off > 0.0 && off < 0.1, "half-precision caches move logits by {off}");
}
