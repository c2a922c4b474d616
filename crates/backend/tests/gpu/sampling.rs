//! Drawing on the device: the tokens that the host draws from the logits, and steps that go on by themselves.

use amoeba_backend::{DeviceSampler, Error, Executable, Limits, LoadOptions, Row};
use amoeba_kernels::sample::Sampling;
use amoeba_kernels::sample::cpu::Sampler;

use crate::host::{self, OnHost};

const CONTEXT: usize = 24;

fn load(model: &str) -> Option<OnHost> {
    let limits = Limits { slots: 3, context: CONTEXT, rows: 8 };
    host::load(model, &LoadOptions::sized(limits)).map(|(gpu, _)| gpu)
}

const PROMPT: [u32; 6] = [5, 9, 5, 300, 17, 9];

/// Rows of a prompt; the last wants logits.
fn prompt(slot: usize) -> Vec<Row> {
    let row = |(position, &token)| Row { token, slot, position, logits: position + 1 == PROMPT.len() };
    PROMPT.iter().enumerate().map(row).collect()
}

/// The prompt and what the host draws from the logits.
fn from_logits(gpu: &mut OnHost, sampling: &Sampling, n: usize) -> Vec<u32> {
    gpu.step(&prompt(1), None).unwrap();
    let mut sampler = Sampler::new(*sampling, gpu.plan().spec.vocab);
    let mut tokens = PROMPT.to_vec();
    loop {
        tokens.push(sampler.sample(gpu.logits(0), &tokens));
        if tokens.len() == PROMPT.len() + n {
            return tokens;
        }
        let (token, position) = (tokens[tokens.len() - 1], tokens.len() - 1);
        gpu.step(&[Row { token, slot: 1, position, logits: true }], None).unwrap();
    }
}

/// The next token of the only sequence.
fn take(gpu: &mut OnHost) -> u32 {
    let [drawn] = gpu.take().unwrap() else { panic!("one row") };
    drawn.checked(0).unwrap()
}

/// The prompt and what the device draws when asked that many steps ahead.
fn drawn(gpu: &mut OnHost, sampling: &Sampling, n: usize, ahead: usize) -> Vec<u32> {
    let mut tokens = PROMPT.to_vec();
    gpu.begin(1, sampling, &tokens).unwrap();
    gpu.enqueue(&prompt(1)).unwrap();
    (0..ahead).for_each(|_| gpu.enqueue_next().unwrap());
    loop {
        tokens.push(take(gpu));
        if tokens.len() == PROMPT.len() + n {
            return tokens;
        }
        gpu.enqueue_next().unwrap();
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
    let Some(mut gpu) = load("qwen3_moe-q4g64") else { return };
    for sampling in samplings() {
        assert_eq!(gpu.refusal(&sampling), None);
        let expected = from_logits(&mut gpu, &sampling, 10);
        for ahead in [0, 1, 3] {
            assert_eq!(drawn(&mut gpu, &sampling, 10, ahead), expected, "{ahead} ahead, {sampling:?}");
        }
    }
    // What was under way when another sequence begins harms nobody.
    gpu.step(&prompt(0), None).unwrap();
    let logits = gpu.logits(0).to_vec();
    drawn(&mut gpu, &samplings()[3], 4, 2);
    gpu.step(&prompt(0), None).unwrap();
    assert!(gpu.logits(0) == logits);
}

/// Sequences come and go; those that stay draw what each draws alone, with steps that are all as wide.
#[test]
fn sequences_of_a_batch_draw_what_they_draw_alone() {
    let Some(mut gpu) = load("qwen3_moe-q4g64") else { return };
    gpu.set_rows_min(3);
    assert_eq!(gpu.bit_identical_sizes(1), 1..=4);
    assert_eq!(gpu.rows_max(), 3);
    // Logits, too, are the same bits at every width and in every row.
    let others: Vec<Row> = [0, 2, 1].map(|slot| prompt(slot)[0]).into();
    let others: Vec<Row> = others.iter().map(|row| Row { logits: true, ..*row }).collect();
    gpu.step(&[others[2]], None).unwrap();
    let logits = gpu.logits(0).to_vec();
    gpu.step(&others, None).unwrap();
    assert!(gpu.logits(2) == logits);
    let samplings = [samplings()[4], samplings()[0], samplings()[6]];
    let alone = samplings.map(|sampling| drawn(&mut gpu, &sampling, 10, 1));
    // Each is read by itself, and then shares steps with the others in turns.
    let mut tokens: [Vec<u32>; 3] = Default::default();
    for slot in 0..3 {
        gpu.begin(slot, &samplings[slot], &PROMPT).unwrap();
        gpu.enqueue(&prompt(slot)).unwrap();
        tokens[slot] = [&PROMPT[..], &[take(&mut gpu)]].concat();
    }
    for (slots, steps) in [(&[0, 1, 2][..], 2), (&[2], 1), (&[1, 2], 3), (&[2, 0], 2), (&[0, 1], 1)] {
        let row = |&slot: &usize| {
            let (token, position) = (*tokens[slot].last().unwrap(), tokens[slot].len() - 1);
            Row { token, slot, position, logits: true }
        };
        gpu.enqueue(&slots.iter().map(row).collect::<Vec<_>>()).unwrap();
        (1..steps).for_each(|_| gpu.enqueue_next().unwrap());
        for _ in 0..steps {
            let drawn = gpu.take().unwrap();
            assert_eq!(drawn.len(), slots.len());
            slots.iter().zip(drawn).for_each(|(slot, drawn)| tokens[*slot].push(drawn.token));
        }
    }
    for (tokens, alone) in tokens.iter().zip(&alone) {
        assert!(tokens.len() > 11 && *tokens == alone[..tokens.len()], "{tokens:?} {alone:?}");
    }
}

#[test]
fn a_recurrent_model_draws_but_does_not_run_ahead() {
    let Some(mut gpu) = load("lfm2_moe-q4g64") else { return };
    for sampling in &samplings()[2..4] {
        let expected = from_logits(&mut gpu, sampling, 6);
        assert_eq!(drawn(&mut gpu, sampling, 6, 0), expected, "{sampling:?}");
    }
    gpu.begin(1, &Sampling::greedy(), &PROMPT).unwrap();
    gpu.enqueue(&prompt(1)).unwrap();
    gpu.take().unwrap();
    gpu.enqueue_next().unwrap();
    let refused = gpu.enqueue_next();
    assert!(matches!(refused, Err(Error::NotContinuous { slot: 1, position: 7, next: None })));
    gpu.take().unwrap();
    gpu.enqueue_next().unwrap();
}

#[test]
fn the_context_ends_and_other_steps_end_a_sequence() {
    let Some(mut gpu) = load("qwen3_moe-q4g64") else { return };
    gpu.begin(0, &Sampling::greedy(), &PROMPT).unwrap();
    gpu.enqueue(&prompt(0)).unwrap();
    for _ in PROMPT.len()..CONTEXT {
        gpu.take().unwrap();
        gpu.enqueue_next().unwrap();
    }
    assert!(matches!(gpu.enqueue_next(), Err(Error::OutOfContext { position: CONTEXT, slot: 0, .. })));
    gpu.take().unwrap();
    let far = Sampling { repeat_penalty: 1.1, repeat_last_n: 5000, ..Sampling::default() };
    assert!(gpu.refusal(&far).unwrap().contains("5000 tokens"));
    gpu.record(64).unwrap();
    assert!(gpu.refusal(&Sampling::greedy()).unwrap().contains("recorded"));
}
