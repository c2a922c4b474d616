//! `sample`: the reference's tokens for every filter, and what a draw leaves for the next step.

use amoeba_kernels::cuda::ZEROED_BYTES;
use amoeba_kernels::sample::cuda::{
    ALL_FINITE, Kind, MAIL_WORDS, MAILS, Places, RECENT_MAX, STATE_WORDS, calls, refusal, work_bytes,
    write_state,
};
use amoeba_kernels::sample::{Sampling, reference};
use amoeba_kernels::testing::{self, Rng};

use crate::memory::Memory;
use crate::{device, module};

fn words(memory: &Memory) -> Vec<u32> {
    memory.bytes().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn put(memory: &mut Memory, words: &[u32]) {
    memory
        .bytes_mut()
        .iter_mut()
        .zip(words.iter().flat_map(|word| word.to_le_bytes()))
        .for_each(|(a, b)| *a = b);
}

/// Memory of a device that samples.
struct Device {
    vocab: usize,
    logits: Memory,
    state: Memory,
    work: Memory,
    step: Memory,
    mails: Memory,
    counter: Memory,
}

impl Device {
    fn new(vocab: usize) -> Option<Device> {
        let of = |words: usize| Memory::new(4 * words);
        module::available().then(|| {
            let mut counter = Memory::new(ZEROED_BYTES);
            counter.bytes_mut().fill(0);
            let (logits, state, work) = (of(vocab), of(STATE_WORDS), Memory::new(work_bytes(vocab)));
            Device { vocab, logits, state, work, step: of(8), mails: of(MAILS * MAIL_WORDS), counter }
        })
    }

    fn begin(&mut self, sampling: &Sampling, recent: &[u32], number: u32) {
        let mut state = vec![0; STATE_WORDS];
        write_state(&mut state, sampling, recent, (2, recent.len()), number);
        put(&mut self.state, &state);
        self.mails.bytes_mut().fill(0xff);
        assert_eq!(refusal(sampling), None);
    }

    /// One draw, with the turns of a seed.
    fn draw(&mut self, sampling: &Sampling, logits: &[f32], seed: u32) -> [u32; 4] {
        put(&mut self.logits, &logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        let at = Places {
            logits: self.logits.address(),
            state: self.state.address(),
            work: self.work.address(),
            step: self.step.address(),
            mails: self.mails.address(),
            counter: self.counter.address(),
        };
        calls(&at, self.vocab, Kind::of(sampling)).iter().for_each(|call| module::launch(call, seed));
        assert!(self.counter.bytes().iter().all(|byte| *byte == 0), "counters are zero again");
        let mails = words(&self.mails);
        let latest = mails.chunks_exact(MAIL_WORDS).filter(|mail| mail[0] != u32::MAX).max().unwrap();
        let latest = [latest[0], latest[1], latest[2], latest[3]];
        assert_eq!(words(&self.step)[..2], [1, 1], "one row, wanted");
        assert_eq!(words(&self.step)[4..6], [latest[1], 2], "the token and its slot");
        latest
    }
}

/// Draws three tokens with each of some settings; every one must be the reference's.
fn check(vocab: usize, shapes: &[&str], temperatures: &[(f32, usize)], filters: &[(f32, f32)]) {
    let mut rng = Rng(3 + vocab as u64);
    let Some(mut device) = Device::new(vocab) else { return };
    for (name, logits) in testing::logits(vocab, &mut rng) {
        if !shapes.is_empty() && !shapes.contains(&name) {
            continue;
        }
        for &(temperature, top_k) in temperatures {
            for &(top_p, min_p) in if temperature == 0.0 { &[(1.0, 0.0)] } else { filters } {
                let repeat_penalty = [1.0, 1.3, 0.8][rng.below(3)];
                let (repeat_last_n, seed) = ([0, 9, RECENT_MAX][rng.below(3)], rng.next_u64());
                let sampling =
                    Sampling { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed };
                let mut recent: Vec<u32> = (0..20).map(|_| rng.below(vocab) as u32).collect();
                device.begin(&sampling, &recent, 40);
                for draw in 1..=2 {
                    let truth = reference::sample(&sampling, &logits, &recent, draw);
                    let mail = device.draw(&sampling, &logits, [0, 1, 977][rng.below(3)]);
                    assert_eq!(mail[1], truth, "{name} of {vocab}, draw {draw}, {sampling:?}");
                    assert_eq!(mail[0], 40 + draw as u32);
                    let bad = logits.iter().position(|x| !x.is_finite());
                    assert_eq!(mail[2], bad.map_or(ALL_FINITE, |bad| bad as u32));
                    assert_eq!(words(&device.step)[6] as usize, recent.len(), "its position");
                    recent.push(truth);
                }
            }
        }
    }
}

const FILTERS: [(f32, f32); 5] = [(1.0, 0.0), (0.9, 0.0), (0.999, 0.05), (1e-30, 0.0), (1.0, 1.0)];

#[test]
fn small_vocabularies_with_every_filter() {
    // Every launch is costly under a sanitizer.
    let (vocabularies, filters) =
        if device::few() { (&[3000][..], &FILTERS[..2]) } else { (&[1, 7, 1023, 3000][..], &FILTERS[..]) };
    for &vocab in vocabularies {
        check(
            vocab,
            &[],
            &[(0.0, 0), (1.0, 0), (0.7, 40), (3.0, 1), (0.01, vocab), (100.0, 2 * vocab)],
            filters,
        );
    }
}

#[test]
fn large_vocabularies() {
    let temperatures = [(0.0, 0), (1.0, 0), (0.6, 20)];
    check(151_936, &["bell", "steep", "peak"], &temperatures, &[(1.0, 0.0), (0.9, 0.01)]);
    check(270_000, &["bell"], &temperatures, &[(1.0, 0.0), (0.9, 0.0)]);
    check(20_000, &["equal", "ties"], &temperatures, &[(0.9, 0.0)]);
}

#[test]
fn every_order_of_turns_draws_the_same() {
    let Some(mut device) = Device::new(5000) else { return };
    let logits = &testing::logits(5000, &mut Rng(1))[1].1;
    for (top_k, top_p) in [(0, 1.0), (0, 0.95), (50, 0.95)] {
        let sampling = Sampling { temperature: 1.0, top_k, top_p, ..Sampling::default() };
        let truth = reference::sample(&sampling, logits, &[], 1);
        for seed in 0..12 {
            device.begin(&sampling, &[], 0);
            assert_eq!(device.draw(&sampling, logits, seed)[1], truth, "{sampling:?}, turns {seed}");
        }
    }
}

#[test]
fn what_is_not_finite_is_told_and_a_token_comes_all_the_same() {
    let Some(mut device) = Device::new(2000) else { return };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        for places in [&[1999][..], &[17, 1500], &(0..2000).collect::<Vec<_>>()] {
            for (temperature, top_k, top_p) in [(0.0, 0, 1.0), (1.0, 0, 1.0), (1.0, 0, 0.5), (1.0, 5, 0.5)] {
                let sampling =
                    Sampling { temperature, top_k, top_p, repeat_penalty: 1.5, ..Sampling::default() };
                let mut logits = vec![1.0; 2000];
                places.iter().for_each(|place| logits[*place] = value);
                device.begin(&sampling, &[17], 7);
                let mail = device.draw(&sampling, &logits, 5);
                assert_eq!(
                    (mail[0], mail[2], mail[3]),
                    (8, places[0] as u32, value.to_bits()),
                    "{sampling:?}"
                );
                assert!(mail[1] < 2000);
            }
        }
    }
}

#[test]
fn the_device_says_what_it_does_not_do() {
    let far = Sampling { repeat_last_n: RECENT_MAX + 1, ..Sampling::default() };
    assert_eq!(refusal(&far), None, "no penalty, no window");
    assert!(refusal(&Sampling { repeat_penalty: 1.1, ..far }).unwrap().contains("1025 tokens"));
}
