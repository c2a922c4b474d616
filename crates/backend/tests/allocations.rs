//! Steady-state decode allocates nothing, recorded or not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use allocations::allocations;
use amoeba_backend::{Cpu, Executable, Limits, LoadOptions, Row};
use amoeba_plan::PathChoice;

#[path = "../../../tests/support/allocations.rs"]
mod allocations;
mod common;

#[test]
fn decode_allocates_nothing_after_the_first_steps() {
    for model in [
        "models/tiny-chat-moe-4bit",
        "fixtures/qwen2_moe-q4g64",
        "fixtures/llama-q4g64",
        "fixtures/deepseek_v3-q4g64",
        "fixtures/gemma4-q4g64-per_layer",
        "recurrent",
    ] {
        let (plan, checkpoint) =
            if model == "recurrent" { common::model("allocations") } else { common::open(model) };
        for (path, spans) in [(PathChoice::Auto, 0), (PathChoice::Unfused, 0), (PathChoice::Auto, 4096)] {
            let options =
                LoadOptions { path, ..common::options(2, Limits { slots: 1, context: 64, rows: 8 }) };
            let mut cpu = Cpu::load(plan.clone(), &checkpoint, &options, &mut |_, _| {}).unwrap();
            cpu.record(spans).unwrap();
            let mut step = |position| {
                cpu.step(&[Row { token: 5, slot: 0, position, logits: true }], None).unwrap();
            };
            // A worker thread allocates once while it starts, which a busy machine may put off: the least of
            // three windows is the steady state.
            let mut window = |start: usize| {
                let before = allocations();
                (start..start + 16).for_each(&mut step);
                allocations() - before
            };
            let least = [0, 16, 32, 48].map(&mut window)[1..].iter().copied().min();
            assert_eq!(least, Some(0), "{model} {path:?} {spans} spans");
        }
    }
}
