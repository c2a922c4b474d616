//! Drawing on the fake device: the tokens that the host draws from the logits, and steps that go on by themselves.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_backend::{DeviceSampler, Error, Executable, Limits, Row};
use amoeba_backend_cuda::Cuda;
use amoeba_kernels::sample::Sampling;
use amoeba_kernels::sample::cpu::Sampler;
use fake_cuda::{Fake, on_fake};

mod common;
mod fake_cuda;

const CONTEXT: usize = 24;

fn load(model: &str) -> Cuda {
    let limits = Limits { slots: 3, context: CONTEXT, rows: 8 };
    common::load(model, &common::options(limits, Fake::build().kernels), &mut |_, _| {}).unwrap()
}

const PROMPT: [u32; 6] = [5, 9, 5, 300, 17, 9];

/// Rows of a prompt; the last wants logits.
fn prompt(slot: usize) -> Vec<Row> {
    let row = |(position, &token)| Row { token, slot, position, logits: position + 1 == PROMPT.len() };
    PROMPT.iter().enumerate().map(row).collect()
}

/// The prompt and what the host draws from the logits.
fn from_logits(cuda: &mut Cuda, sampling: &Sampling, n: usize) -> Vec<u32> {
    cuda.step(&prompt(1), None).unwrap();
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

/// The next token of the only sequence.
fn take(cuda: &mut Cuda) -> u32 {
    let [drawn] = cuda.take().unwrap() else { panic!("one row") };
    drawn.checked(0).unwrap()
}

/// The prompt and what the device draws, so many steps ahead.
fn drawn(cuda: &mut Cuda, sampling: &Sampling, n: usize, ahead: usize) -> Vec<u32> {
    let mut tokens = PROMPT.to_vec();
    cuda.begin(1, sampling, &tokens).unwrap();
    cuda.enqueue(&prompt(1)).unwrap();
    (0..ahead).for_each(|_| cuda.enqueue_next().unwrap());
    loop {
        tokens.push(take(cuda));
        if tokens.len() == PROMPT.len() + n {
            return tokens;
        }
        cuda.enqueue_next().unwrap();
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
        cuda.step(&prompt(0), None).unwrap();
        let logits = cuda.logits(0).to_vec();
        drawn(&mut cuda, &samplings()[3], 4, 2);
        cuda.step(&prompt(0), None).unwrap();
        assert!(cuda.logits(0) == logits);
    });
}

/// Sequences come and go; those that stay draw what each draws alone, with steps that are all as wide.
#[test]
fn sequences_of_a_batch_draw_what_they_draw_alone() {
    on_fake("sequences_of_a_batch_draw_what_they_draw_alone", &[], || {
        let mut cuda = load("qwen3_moe-q4g64");
        cuda.set_rows_min(3);
        assert_eq!(cuda.bit_identical_sizes(1), 1..=4);
        assert_eq!(cuda.rows_max(), 3);
        // Logits, too, are the same bits at every width and in every row.
        let others: Vec<Row> = [0, 2, 1].map(|slot| prompt(slot)[0]).into();
        let others: Vec<Row> = others.iter().map(|row| Row { logits: true, ..*row }).collect();
        cuda.step(&[others[2]], None).unwrap();
        let logits = cuda.logits(0).to_vec();
        cuda.step(&others, None).unwrap();
        assert!(cuda.logits(2) == logits);
        let samplings = [samplings()[4], samplings()[0], samplings()[6]];
        let alone = samplings.map(|sampling| drawn(&mut cuda, &sampling, 10, 1));
        // Each is read by itself, and then shares steps with the others in turns.
        let mut tokens: [Vec<u32>; 3] = Default::default();
        for slot in 0..3 {
            cuda.begin(slot, &samplings[slot], &PROMPT).unwrap();
            cuda.enqueue(&prompt(slot)).unwrap();
            tokens[slot] = [&PROMPT[..], &[take(&mut cuda)]].concat();
        }
        for (slots, steps) in [(&[0, 1, 2][..], 2), (&[2], 1), (&[1, 2], 3), (&[2, 0], 2), (&[0, 1], 1)] {
            let row = |&slot: &usize| {
                let (token, position) = (*tokens[slot].last().unwrap(), tokens[slot].len() - 1);
                Row { token, slot, position, logits: true }
            };
            cuda.enqueue(&slots.iter().map(row).collect::<Vec<_>>()).unwrap();
            (1..steps).for_each(|_| cuda.enqueue_next().unwrap());
            for _ in 0..steps {
                let drawn = cuda.take().unwrap();
                assert_eq!(drawn.len(), slots.len());
                slots.iter().zip(drawn).for_each(|(slot, drawn)| tokens[*slot].push(drawn.token));
            }
        }
        for (tokens, alone) in tokens.iter().zip(&alone) {
            assert!(tokens.len() > 11 && *tokens == alone[..tokens.len()], "{tokens:?} {alone:?}");
        }
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
        cuda.begin(1, &Sampling::greedy(), &PROMPT).unwrap();
        cuda.enqueue(&prompt(1)).unwrap();
        cuda.take().unwrap();
        cuda.enqueue_next().unwrap();
        let refused = cuda.enqueue_next();
        assert!(matches!(refused, Err(Error::NotContinuous { slot: 1, position: 7, next: None })));
        cuda.take().unwrap();
        cuda.enqueue_next().unwrap();
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
            cuda.step(&prompt(0), None).unwrap();
            let before = lines();
            cuda.step(&prompt(0), None).unwrap();
            let step = lines() - before;
            cuda.begin(0, &sampling, &PROMPT).unwrap();
            cuda.enqueue(&prompt(0)).unwrap();
            assert_eq!(lines(), before + 2 * step + tail, "a draw is so many launches");
            for _ in 0..3 {
                let before = lines();
                cuda.enqueue_next().unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                let new: Vec<&str> = text.lines().skip(before).collect();
                // The graph logs itself, then each of its launches; a copy would be counted but not logged.
                assert_eq!(new[0], format!("graph {}", new.len() - 1));
                assert!(new[1..].iter().all(|line| line.starts_with("launch")), "{new:?}");
                cuda.take().unwrap();
            }
        }
    });
    let _ = std::fs::remove_file(path);
}

#[test]
fn the_context_ends_and_other_steps_end_a_sequence() {
    on_fake("the_context_ends_and_other_steps_end_a_sequence", &[], || {
        let mut cuda = load("qwen3_moe-q4g64");
        cuda.begin(0, &Sampling::greedy(), &PROMPT).unwrap();
        cuda.enqueue(&prompt(0)).unwrap();
        for _ in PROMPT.len()..CONTEXT {
            cuda.take().unwrap();
            cuda.enqueue_next().unwrap();
        }
        assert!(matches!(cuda.enqueue_next(), Err(Error::OutOfContext { position: CONTEXT, slot: 0, .. })));
        cuda.take().unwrap();
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
        cuda.begin(0, &Sampling::greedy(), &PROMPT).unwrap();
        let said = cuda.enqueue(&prompt(0)).unwrap_err().to_string();
        assert!(said.contains("cuda:0 (fibers") && said.contains("CUDA_ERROR_LAUNCH_FAILED"), "{said}");
    });
}
