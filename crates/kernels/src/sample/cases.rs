//! Cases of `sample`: the CPU's tokens are the reference's, and draws follow the probabilities.

use super::cpu::Sampler;
use super::*;
use crate::testing::{self, Rng};

fn plain() -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, ..Sampling::default() }
}

#[test]
fn the_cpu_draws_what_the_reference_draws() {
    let mut rng = Rng(5);
    for vocab in [1, 2, 7, 300, 1500] {
        for (name, logits) in testing::logits(vocab, &mut rng) {
            for (temperature, top_k) in
                [(0.0, 0), (1.0, 0), (0.7, 40), (3.0, 1), (0.01, vocab), (100.0, 2 * vocab)]
            {
                for (top_p, min_p) in [(1.0, 0.0), (0.9, 0.0), (0.999, 0.05), (1e-30, 0.0), (1.0, 1.0)] {
                    let repeat_penalty = [1.0, 1.3, 0.8][rng.below(3)];
                    let sampling = Sampling {
                        temperature,
                        top_k,
                        top_p,
                        min_p,
                        repeat_penalty,
                        repeat_last_n: 9,
                        seed: rng.0,
                    };
                    let recent: Vec<u32> = (0..20).map(|_| rng.below(vocab + 2) as u32).collect();
                    let mut sampler = Sampler::new(sampling, vocab);
                    for draw in 1..4 {
                        let truth = reference::sample(&sampling, &logits, &recent, draw);
                        let token = sampler.sample(&logits, &recent);
                        assert_eq!(token, truth, "{name} of {vocab}, {sampling:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn weights_are_exponentials() {
    assert_eq!(weight(0.0), ONE);
    let mut worst = 0.0f64;
    for i in 0..320_000 {
        let distance = f64::from(i) * 1e-4;
        let truth = (-distance).exp() * ONE as f64;
        worst = worst.max((weight(distance) as f64 - truth).abs() - truth * 1e-15);
    }
    assert!(worst <= 0.51, "half a unit for rounding: {worst}");
    assert_eq!([32.0, 1e300, f64::INFINITY, f64::NAN].map(weight), [0; 4]);
}

#[test]
fn keys_order_logits_then_ids() {
    let falling =
        [f32::INFINITY, f32::MAX, 1.0, f32::MIN_POSITIVE, 0.0, -1e-40, -1.0, f32::MIN, f32::NEG_INFINITY];
    for pair in falling.windows(2) {
        assert!(key(pair[0], 9) > key(pair[1], 0), "{pair:?}");
    }
    assert_eq!(key(-0.0, 3), key(0.0, 3));
    assert!(key(1.0, 3) > key(1.0, 4));
    assert!(falling.iter().all(|x| logit_of(key(*x, 7)) == *x && id_of(key(*x, 7)) == 7));
}

fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(sampling, logits.len());
    let mut counts = vec![0; logits.len()];
    (0..draws).for_each(|_| counts[sampler.sample(logits, &[]) as usize] += 1);
    counts
}

/// Pearson's statistic of counts against probabilities.
fn chi_square(counts: &[usize], p: &[f64]) -> f64 {
    let n: usize = counts.iter().sum();
    counts
        .iter()
        .zip(p)
        .filter(|(_, p)| **p > 0.0)
        .map(|(&c, p)| (c as f64 - p * n as f64).powi(2) / (p * n as f64))
        .sum()
}

#[test]
fn draws_follow_the_probabilities() {
    let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.1].iter().map(|p| p.ln()).collect();
    let n = 200_000;
    // 99.9 % quantile of chi-square with 3 degrees of freedom: 16.3.
    assert!(chi_square(&counts(plain(), &logits, n), &[0.4, 0.3, 0.2, 0.1]) < 16.3);
    let top_k = Sampling { top_k: 2, ..plain() };
    let found = counts(top_k, &logits, n);
    assert!(chi_square(&found, &[4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]) < 10.8 && found[2..] == [0, 0]);
    let top_p = Sampling { top_p: 0.69, ..plain() };
    assert_eq!(counts(top_p, &logits, n)[2..], [0, 0]);
    let min_p = Sampling { min_p: 0.6, ..plain() };
    assert_eq!(counts(min_p, &logits, n)[2..], [0, 0]);
    let cold = Sampling { temperature: 0.5, ..plain() };
    let squares = [16.0, 9.0, 4.0, 1.0].map(|p| p / 30.0);
    assert!(chi_square(&counts(cold, &logits, n), &squares) < 16.3);
}

#[test]
fn greedy_takes_the_lowest_id_on_ties() {
    assert_eq!(Sampler::new(Sampling::greedy(), 4).sample(&[1.0, 3.0, 3.0, 2.0], &[]), 1);
}

#[test]
fn the_penalty_acts_once_per_token_and_only_on_recent_ones() {
    let sampling = Sampling { repeat_penalty: 2.0, repeat_last_n: 2, ..Sampling::greedy() };
    let mut sampler = Sampler::new(sampling, 3);
    assert_eq!(sampler.sample(&[3.0, 2.0, 1.0], &[0]), 1, "3/2 < 2");
    assert_eq!(sampler.sample(&[4.5, 2.0, 1.0], &[0, 0]), 0, "once: 4.5/2 > 2");
    assert_eq!(sampler.sample(&[3.0, 2.0, 1.0], &[0, 2, 2]), 0, "forgotten");
    assert_eq!(sampler.sample(&[-1.0, -1.5, -9.0], &[0]), 1, "negative logits are multiplied");
}

#[test]
fn a_seed_fixes_the_draws() {
    let logits: Vec<f32> = (0..1000).map(|i| (i * 37 % 101) as f32 / 16.0).collect();
    let run = |seed| {
        let mut sampler = Sampler::new(Sampling { seed, ..Sampling::default() }, logits.len());
        (0..50).map(|_| sampler.sample(&logits, &[])).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    // For good: no machine and no version may draw otherwise.
    assert_eq!(run(7)[..6], [696, 625, 535, 595, 333, 161]);
}

#[test]
fn numbers_outside_their_range_are_named() {
    for (sampling, name) in [
        (Sampling { temperature: -1.0, ..plain() }, "temperature"),
        (Sampling { temperature: f32::NAN, ..plain() }, "temperature"),
        (Sampling { top_p: 0.0, ..plain() }, "top-p"),
        (Sampling { min_p: 1.5, ..plain() }, "min-p"),
        (Sampling { repeat_penalty: 0.0, ..plain() }, "repeat-penalty"),
    ] {
        let error = sampling.check().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
