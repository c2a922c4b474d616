//! Steady-state decode allocates nothing, recorded or not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amoeba_backend::{Cpu, Executable, Limits, LoadOptions, Row};
use amoeba_checkpoint::Checkpoint;
use amoeba_plan::{PathChoice, Plan};

mod common;

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: same contract as ours.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: same contract as ours.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decode_allocates_nothing_after_the_first_steps() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let open = |model: &str| {
        let checkpoint = Arc::new(Checkpoint::open(&root.join(model)).unwrap());
        (Plan::of(&checkpoint).unwrap(), checkpoint)
    };
    for model in [
        "models/tiny-chat-moe-4bit",
        "fixtures/qwen2_moe-q4g64",
        "fixtures/llama-q4g64",
        "fixtures/deepseek_v3-q4g64",
        "fixtures/gemma4-q4g64-per_layer",
        "recurrent",
    ] {
        let (plan, checkpoint) =
            if model == "recurrent" { common::model("allocations") } else { open(model) };
        for (path, spans) in [(PathChoice::Auto, 0), (PathChoice::Unfused, 0), (PathChoice::Auto, 4096)] {
            let options =
                LoadOptions { path, ..common::options(2, Limits { slots: 1, context: 64, rows: 8 }) };
            let mut cpu = Cpu::load(plan.clone(), &checkpoint, &options, &mut |_, _| {}).unwrap();
            cpu.record(spans).unwrap();
            let mut step = |position| {
                cpu.step(&[Row { token: 5, slot: 0, position, logits: true }], None).unwrap();
            };
            // A worker thread allocates once while it starts, which a busy machine may put off: the least of three
            // windows is the steady state.
            let mut window = |start: usize| {
                let before = COUNT.load(Ordering::Relaxed);
                (start..start + 16).for_each(&mut step);
                COUNT.load(Ordering::Relaxed) - before
            };
            let least = [0, 16, 32, 48].map(&mut window)[1..].iter().copied().min();
            assert_eq!(least, Some(0), "{model} {path:?} {spans} spans");
        }
    }
}
