//! `sample`: the reference's tokens for every filter, and what a draw leaves for the next step.

use amoeba_kernels::gpu::ZEROED_BYTES;
use amoeba_kernels::sample::cuda::{
    ALL_FINITE, Kind, Places, RECENT_MAX, RESULT_WORDS, RING, STATE_WORDS, batch_words, calls, refusal,
    work_bytes, write_batch, write_state,
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

/// Memory of a device that samples for some sequences.
struct Device {
    vocab: usize,
    rows: usize,
    logits: Memory,
    states: Memory,
    batch: Memory,
    work: Memory,
    step: Memory,
    ring: Memory,
    counters: Memory,
    /// The last entry of the ring.
    number: usize,
}

/// Sequences of a device; more than a batch has.
const SLOTS: usize = 6;

impl Device {
    fn new(vocab: usize, rows: usize) -> Option<Device> {
        let of = |words: usize| Memory::new(4 * words);
        module::available().then(|| {
            let mut counters = Memory::new(ZEROED_BYTES);
            counters.bytes_mut().fill(0);
            Device {
                vocab,
                rows,
                logits: of(rows * vocab),
                states: of(SLOTS * STATE_WORDS),
                batch: of(batch_words(rows)),
                work: Memory::new(rows * work_bytes(vocab)),
                step: of(4 + 4 * rows),
                ring: of(RING * rows * RESULT_WORDS),
                counters,
                number: 0,
            }
        })
    }

    /// Sequences begin.
    fn begin(&mut self, slot: usize, sampling: &Sampling, recent: &[u32]) {
        let mut all = words(&self.states);
        write_state(&mut all[slot * STATE_WORDS..][..STATE_WORDS], sampling, recent);
        put(&mut self.states, &all);
        assert_eq!(refusal(sampling), None);
    }

    /// The next draws are for these slots.
    fn batch(&mut self, slots: &[usize], number: u32) {
        let mut batch = vec![0; batch_words(self.rows)];
        write_batch(&mut batch, slots.iter().copied(), number);
        put(&mut self.batch, &batch);
        self.ring.bytes_mut().fill(0xff);
        self.number = number as usize;
    }

    /// One draw for each row, with the turns of a seed: what the ring holds, and slot and position of the
    /// next step.
    fn draw(&mut self, kind: Kind, logits: &[&[f32]], seed: u32) -> Vec<([u32; 4], [u32; 2])> {
        put(&mut self.logits, &logits.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        let at = Places {
            logits: self.logits.address(),
            stride: self.vocab,
            states: self.states.address(),
            batch: self.batch.address(),
            work: self.work.address(),
            step: self.step.address(),
            ring: self.ring.address(),
            ring_rows: self.rows,
            counters: self.counters.address(),
        };
        calls(&at, self.vocab, kind, self.rows).iter().for_each(|call| module::launch(call, seed));
        assert!(self.counters.bytes().iter().all(|byte| *byte == 0), "counters are zero again");
        self.number += 1;
        let (step, ring) = (words(&self.step), words(&self.ring));
        assert_eq!(step[..2], [logits.len() as u32; 2], "rows, all wanted");
        let entry = &ring[self.number % RING * self.rows * RESULT_WORDS..][..self.rows * RESULT_WORDS];
        let row = |n: usize| {
            let result: [u32; RESULT_WORDS] = entry[RESULT_WORDS * n..][..RESULT_WORDS].try_into().unwrap();
            let next = &step[4 + 4 * n..][..4];
            assert_eq!((next[0], next[3]), (result[1], n as u32), "the token, whose logits are its own");
            (result, [next[1], next[2]])
        };
        (0..logits.len()).map(row).collect()
    }
}

/// Draws three tokens with each of some settings; every one must be the reference's.
fn check(vocab: usize, shapes: &[&str], temperatures: &[(f32, usize)], filters: &[(f32, f32)]) {
    let mut rng = Rng(3 + vocab as u64);
    let Some(mut device) = Device::new(vocab, 1) else { return };
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
                device.begin(2, &sampling, &recent);
                device.batch(&[2], 40);
                for draw in 1..=2 {
                    let truth = reference::sample(&sampling, &logits, &recent, draw);
                    let turns = [0, 1, 977][rng.below(3)];
                    let [(result, next)] = device.draw(Kind::of(&sampling), &[&logits], turns)[..] else {
                        panic!("one row")
                    };
                    assert_eq!(result[1], truth, "{name} of {vocab}, draw {draw}, {sampling:?}");
                    assert_eq!(result[0], 40 + draw as u32);
                    let bad = logits.iter().position(|x| !x.is_finite());
                    assert_eq!(result[2], bad.map_or(ALL_FINITE, |bad| bad as u32));
                    assert_eq!(next, [2, recent.len() as u32], "slot and position");
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
    let Some(mut device) = Device::new(5000, 1) else { return };
    let logits = &testing::logits(5000, &mut Rng(1))[1].1;
    for (top_k, top_p) in [(0, 1.0), (0, 0.95), (50, 0.95)] {
        let sampling = Sampling { temperature: 1.0, top_k, top_p, ..Sampling::default() };
        let truth = reference::sample(&sampling, logits, &[], 1);
        for seed in 0..12 {
            device.begin(0, &sampling, &[]);
            device.batch(&[0], 0);
            let drawn = device.draw(Kind::of(&sampling), &[logits], seed);
            assert_eq!(drawn[0].0[1], truth, "{sampling:?}, turns {seed}");
        }
    }
}

#[test]
fn what_is_not_finite_is_told_and_a_token_comes_all_the_same() {
    let Some(mut device) = Device::new(2000, 1) else { return };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        for places in [&[1999][..], &[17, 1500], &(0..2000).collect::<Vec<_>>()] {
            for (temperature, top_k, top_p) in [(0.0, 0, 1.0), (1.0, 0, 1.0), (1.0, 0, 0.5), (1.0, 5, 0.5)] {
                let sampling =
                    Sampling { temperature, top_k, top_p, repeat_penalty: 1.5, ..Sampling::default() };
                let mut logits = vec![1.0; 2000];
                places.iter().for_each(|place| logits[*place] = value);
                device.begin(0, &sampling, &[17]);
                device.batch(&[0], 7);
                let [number, token, bad, bits] = device.draw(Kind::of(&sampling), &[&logits], 5)[0].0;
                assert_eq!((number, bad, bits), (8, places[0] as u32, value.to_bits()), "{sampling:?}");
                assert!(token < 2000);
            }
        }
    }
}

/// Sequences of one batch have nothing to do with one another, whatever each asks for, and go on in other
/// batches.
#[test]
fn rows_of_a_batch_draw_as_each_would_alone() {
    let Some(mut device) = Device::new(3000, 4) else { return };
    let hot = Sampling { temperature: 1.2, top_k: 0, top_p: 1.0, seed: 5, ..Sampling::default() };
    let samplings = [
        Sampling { top_p: 0.8, repeat_penalty: 1.4, ..hot },
        Sampling::greedy(),
        Sampling { top_k: 30, min_p: 0.01, seed: 6, ..hot },
        Sampling { seed: 7, repeat_penalty: 1.2, ..hot },
        Sampling { top_k: 30, top_p: 0.9, seed: 8, ..hot },
        Sampling { repeat_penalty: 1.3, ..Sampling::greedy() },
    ];
    let mut rng = Rng(77);
    let mut recent: Vec<Vec<u32>> =
        (0..SLOTS).map(|slot| (0..10 + slot).map(|_| rng.below(3000) as u32).collect()).collect();
    let started: Vec<usize> = recent.iter().map(Vec::len).collect();
    for slot in 0..SLOTS {
        device.begin(slot, &samplings[slot], &recent[slot]);
    }
    let mut shapes = testing::logits(3000, &mut rng);
    shapes.retain(|(_, logits)| logits.iter().all(|x| x.is_finite()));
    let batches: [&[usize]; 6] = [&[0, 1, 2, 3], &[3, 5], &[5, 4, 2], &[1, 5], &[4, 2, 3, 0], &[1]];
    for (turn, slots) in batches.into_iter().enumerate() {
        device.batch(slots, 100 * turn as u32);
        let kinds = slots.iter().map(|slot| Kind::of(&samplings[*slot]));
        let kind = kinds.reduce(Kind::with).unwrap();
        for again in 0..2 {
            let logits: Vec<&[f32]> =
                slots.iter().map(|slot| &*shapes[(turn + again + slot) % shapes.len()].1).collect();
            let drawn = device.draw(kind, &logits, (turn + again) as u32);
            for ((&slot, logits), (result, next)) in slots.iter().zip(logits).zip(drawn) {
                let tokens = &mut recent[slot];
                let draw = (tokens.len() - started[slot] + 1) as u64;
                let truth = reference::sample(&samplings[slot], logits, tokens, draw);
                assert_eq!(result, [(100 * turn + again + 1) as u32, truth, ALL_FINITE, 0], "slot {slot}");
                assert_eq!(next, [slot as u32, tokens.len() as u32]);
                tokens.push(truth);
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
