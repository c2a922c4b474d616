//! Steady-state decode of a batch allocates nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_engine::{Engine, EngineOptions, LoadOptions, Model, Request, Sampling};

#[path = "../../../tests/support/allocations.rs"]
mod allocations;
use allocations::allocations;

/// Text is made when events are taken, and strings are allocated there; a step leaves tokens.
#[test]
fn a_step_that_decodes_a_batch_allocates_nothing() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-chat-moe-4bit");
    let options = LoadOptions { context: Some(128), slots: 4, threads: Some(2), ..LoadOptions::default() };
    let mut model = Model::load(&dir, &options, &mut |_, _| {}).unwrap();
    let prompt = model.raw_prompt("Once upon a time").unwrap();
    let mut engine = Engine::new(&mut model, &EngineOptions::default());
    for seed in 0..4 {
        let sampling =
            Sampling { temperature: [0.0, 1.0][seed % 2], seed: seed as u64, ..Sampling::default() };
        let request = Request { sampling, ignore_eos: true, ..Request::default() };
        engine.submit(&prompt, &request).unwrap();
    }
    let mut window = || {
        let mut allocated = 0;
        for _ in 0..16 {
            let before = allocations();
            let progress = engine.step().unwrap();
            allocated += allocations() - before;
            while engine.next_event().is_some() {}
            assert!(progress.decoded > 0);
        }
        allocated
    };
    // A worker thread allocates once while it starts, which a busy machine may put off: the least of three
    // windows is the steady state.
    let least = [0; 4].map(|_| window())[1..].iter().copied().min();
    assert_eq!(least, Some(0));
}
