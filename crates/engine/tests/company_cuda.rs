//! Sessions that share a CUDA device, on the fake driver: the tokens that each gets alone.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use amoeba_engine::{
    Device, Engine, EngineOptions, Event, KernelCache, LoadOptions, Model, Prompt, Request, Sampling,
    SessionId,
};
use amoeba_text::Format;
use fake_cuda::{Fake, on_fake};

#[path = "../../../tests/support/speaking.rs"]
mod support;

#[path = "../../backend-cuda/tests/fake_cuda/mod.rs"]
mod fake_cuda;

fn load(model: &str) -> Model {
    let folder = support::speaking(&format!("fixtures/{model}"));
    let options = LoadOptions {
        device: Device::Cuda(0),
        context: Some(24),
        rows: 8,
        slots: 2,
        kernel_cache: Some(KernelCache { dir: Fake::build().kernels, bytes_max: 1 << 30 }),
        ..LoadOptions::default()
    };
    Model::load(folder.path(), &options, &mut |_, _| {}).unwrap()
}

/// Prompt and request of the n-th session.
fn session(n: usize) -> (Prompt, Request) {
    let tokens = (0..[5, 11, 2][n]).map(|i| ((i * 37 + n * 101) % 500 + 5) as u32).collect();
    let sampling = match n {
        0 => Sampling::greedy(),
        _ => Sampling { temperature: 1.3, seed: n as u64, repeat_penalty: 1.2, ..Sampling::default() },
    };
    let request = Request { sampling, max_tokens: Some(4 + n), ignore_eos: true, ..Request::default() };
    (Prompt { tokens, format: Format::default() }, request)
}

/// Tokens of some sessions, submitted one after another with a step between them.
fn run(model: &mut Model, sessions: &[usize]) -> Vec<Vec<u32>> {
    let mut engine = Engine::new(model, &EngineOptions::default());
    let mut ids: Vec<SessionId> = Vec::new();
    let mut tokens = vec![Vec::new(); sessions.len()];
    while ids.len() < sessions.len() || !engine.is_idle() {
        if let Some(n) = sessions.get(ids.len()) {
            let (prompt, request) = session(*n);
            ids.push(engine.submit(&prompt, &request).unwrap());
        }
        engine.step().unwrap();
        while let Some((id, event)) = engine.next_event() {
            match event {
                Event::Piece(_) => {}
                Event::Finished(session) => {
                    assert_eq!(session.stats().sampling, "device");
                    let n = ids.iter().position(|other| *other == id).unwrap();
                    tokens[n] = session.generated().to_vec();
                }
                Event::Failed(_, error) => panic!("{error}"),
            }
        }
    }
    tokens
}

#[test]
fn a_device_gives_each_session_what_it_gets_alone() {
    on_fake("a_device_gives_each_session_what_it_gets_alone", &[], || {
        for name in ["qwen3_moe-q4g64", "lfm2_moe-q4g64"] {
            let mut model = load(name);
            let alone: Vec<Vec<u32>> = (0..3).flat_map(|n| run(&mut model, &[n])).collect();
            assert_eq!(run(&mut model, &[0, 1, 2]), alone, "{name}");
            assert!(alone.iter().zip(4..).all(|(tokens, n)| tokens.len() == n));
        }
    });
}
