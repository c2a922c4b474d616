//! Drawing on the fake device: the tokens that the host draws from the logits, and steps that go on by themselves.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{Device, Draws, Error, Executable, KernelCache, Limits, LoadOptions, Row};
use amoeba_backend_cuda::{Cuda, Ready};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::sample::Sampling;
use amoeba_kernels::sample::cpu::Sampler;
use amoeba_plan::Plan;
use fake_cuda::{Fake, on_fake};

mod fake_cuda;

const CONTEXT: usize = 24;

fn load(model: &str) -> Cuda {
    let options = LoadOptions {
        device: Device::Cuda(0),
        kernel_cache: Some(KernelCache { dir: Fake::build().kernels, bytes_max: 1 << 30 }),
        libraries: Some(Vec::new()),
        overlap: Some(true),
        notice: |text| panic!("{text}"),
        ..LoadOptions::sized(Limits { slots: 2, context: CONTEXT, rows: 8 })
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let checkpoint = Arc::new(Checkpoint::open(&root.join(model)).unwrap());
    let plan = Plan::of(&checkpoint).unwrap();
    let ready = Ready::new(&plan, &checkpoint, &options).unwrap();
    Cuda::load(ready, plan, &checkpoint, &options, &mut |_, _| {}).unwrap()
}

const PROMPT: [u32; 6] = [5, 9, 5, 300, 17, 9];

/// Reads a prompt; its last row wants logits.
fn read(cuda: &mut Cuda, slot: usize) {
    let row = |(position, &token)| Row { token, slot, position, logits: position + 1 == PROMPT.len() };
    cuda.step(&PROMPT.iter().enumerate().map(row).collect::<Vec<_>>(), None).unwrap();
}

/// The prompt and what the host draws from the logits.
fn from_logits(cuda: &mut Cuda, sampling: &Sampling, n: usize) -> Vec<u32> {
    read(cuda, 1);
    let mut sampler = Sampler::new(*sampling, cuda.plan().spec.vocab);
    let mut tokens = PROMPT.to_vec();
    loop {
        tokens.push(sampler.sample(cuda.logits(0), &tokens));
        if tokens.len() == PROMPT.len() + n {
            return tokens;
        }
        let (token, position) = (tokens[tokens.len() - 1], tokens.len() - 1);
        cuda.step(&[Row { token, slot: 1, position, logits: true }], None).unwrap();
    }
}

/// The prompt and what the device draws, so many steps ahead.
fn drawn(cuda: &mut Cuda, sampling: &Sampling, n: usize, ahead: usize) -> Vec<u32> {
    read(cuda, 1);
    let mut tokens = PROMPT.to_vec();
    cuda.begin(sampling, &tokens, 1).unwrap();
    (0..ahead).for_each(|_| cuda.go_on().unwrap());
    loop {
        tokens.push(cuda.token().unwrap());
        if tokens.len() == PROMPT.len() + n {
            return tokens;
        }
        cuda.go_on().unwrap();
    }
}

fn samplings() -> Vec<Sampling> {
    let hot = Sampling { temperature: 1.3, top_k: 0, top_p: 1.0, seed: 11, ..Sampling::default() };
    vec![
        Sampling::greedy(),
        Sampling { repeat_penalty: 1.5, repeat_last_n: 4, ..Sampling::greedy() },
        hot,
        Sampling { top_k: 20, repeat_penalty: 1.3, ..hot },
        Sampling { top_k: 30, top_p: 0.8, min_p: 0.05, temperature: 0.8, ..hot },
        Sampling { top_p: 0.9, ..hot },
        Sampling { top_p: 0.7, min_p: 0.1, repeat_penalty: 0.7, seed: 12, ..hot },
    ]
}

#[test]
fn the_device_draws_what_the_host_draws() {
    on_fake("the_device_draws_what_the_host_draws", &[], || {
        let mut cuda = load("qwen3_moe-q4g64");
        for sampling in samplings() {
            assert_eq!(cuda.refusal(&sampling), None);
            let expected = from_logits(&mut cuda, &sampling, 10);
            for ahead in [0, 1, 3] {
                assert_eq!(drawn(&mut cuda, &sampling, 10, ahead), expected, "{ahead} ahead, {sampling:?}");
            }
        }
        // What was under way when another sequence begins harms nobody.
        read(&mut cuda, 0);
        let logits = cuda.logits(0).to_vec();
        drawn(&mut cuda, &samplings()[3], 4, 2);
        read(&mut cuda, 0);
        assert!(cuda.logits(0) == logits);
    });
}

#[test]
fn a_recurrent_model_draws_but_does_not_run_ahead() {
    on_fake("a_recurrent_model_draws_but_does_not_run_ahead", &[], || {
        let mut cuda = load("lfm2_moe-q4g64");
        for sampling in &samplings()[2..4] {
            let expected = from_logits(&mut cuda, sampling, 6);
            assert_eq!(drawn(&mut cuda, sampling, 6, 0), expected, "{sampling:?}");
        }
        read(&mut cuda, 1);
        cuda.begin(&Sampling::greedy(), &PROMPT, 1).unwrap();
        cuda.token().unwrap();
        cuda.go_on().unwrap();
        assert!(matches!(cuda.go_on(), Err(Error::NotContinuous { slot: 1, position: 7, next: None })));
        cuda.token().unwrap();
        cuda.go_on().unwrap();
    });
}

#[test]
fn a_drawn_step_is_one_graph_that_copies_nothing() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("draws-{}", std::process::id()));
    let name = "a_drawn_step_is_one_graph_that_copies_nothing";
    on_fake(name, &[("FAKE_CUDA_LOG", path.to_str().unwrap())], || {
        let path = std::env::var("FAKE_CUDA_LOG").unwrap();
        let lines = || std::fs::read_to_string(&path).unwrap_or_default().lines().count();
        let mut cuda = load("qwen3_moe-q4g64");
        for (sampling, tail) in [(Sampling::greedy(), 1), (Sampling::default(), 3)] {
            read(&mut cuda, 0);
            let before = lines();
            cuda.begin(&sampling, &PROMPT, 0).unwrap();
            assert_eq!(lines(), before + tail, "a draw is so many launches");
            for _ in 0..3 {
                let before = lines();
                cuda.go_on().unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                let new: Vec<&str> = text.lines().skip(before).collect();
                // The graph logs itself, then each of its launches; a copy would be counted but not logged.
                assert_eq!(new[0], format!("graph {}", new.len() - 1));
                assert!(new[1..].iter().all(|line| line.starts_with("launch")), "{new:?}");
                cuda.token().unwrap();
            }
        }
    });
    let _ = std::fs::remove_file(path);
}

#[test]
fn the_context_ends_and_other_steps_end_a_sequence() {
    on_fake("the_context_ends_and_other_steps_end_a_sequence", &[], || {
        let mut cuda = load("qwen3_moe-q4g64");
        read(&mut cuda, 0);
        cuda.begin(&Sampling::greedy(), &PROMPT, 0).unwrap();
        for _ in PROMPT.len()..CONTEXT {
            cuda.token().unwrap();
            cuda.go_on().unwrap();
        }
        assert!(matches!(cuda.go_on(), Err(Error::OutOfContext { position: CONTEXT, slot: 0, .. })));
        cuda.token().unwrap();
        let far = Sampling { repeat_penalty: 1.1, repeat_last_n: 5000, ..Sampling::default() };
        assert!(cuda.refusal(&far).unwrap().contains("5000 tokens"));
        cuda.record(64).unwrap();
        assert!(cuda.refusal(&Sampling::greedy()).unwrap().contains("recorded"));
    });
}

#[test]
fn a_draw_that_fails_is_an_error() {
    on_fake("a_draw_that_fails_is_an_error", &[("FAKE_CUDA_FAIL", "sample_scan")], || {
        let mut cuda = load("qwen3_moe-q4g64");
        read(&mut cuda, 0);
        let said = cuda.begin(&Sampling::greedy(), &PROMPT, 0).unwrap_err().to_string();
        assert!(said.contains("cuda:0 (fibers") && said.contains("CUDA_ERROR_LAUNCH_FAILED"), "{said}");
    });
}
