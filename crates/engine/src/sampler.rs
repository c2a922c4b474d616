//! From logits to a token: penalty, top-k, top-p, min-p, temperature, one draw. Order as in llama.cpp.

use crate::Error;

/// Sampling parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy, the lowest id on ties.
    pub temperature: f32,
    /// Keep the most likely tokens whose probabilities add up to this; 1 is off.
    pub top_p: f32,
    /// Keep so many most likely tokens; 0 is off.
    pub top_k: usize,
    /// Drop tokens less likely than this times the most likely one; 0 is off.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens (Keskar et al. 2019); 1 is off.
    pub repeat_penalty: f32,
    /// How many recent tokens are penalised.
    pub repeat_last_n: usize,
    /// Seed of the draws; the same seed, prompt and build give the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.7,
            top_p: 0.95,
            top_k: 40,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Greedy decoding.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first one outside its range.
    pub fn check(&self) -> Result<(), Error> {
        let range = |name, x: f32, from: f32, to: f32, allowed| {
            let inside = (from..=to).contains(&x);
            if inside { Ok(()) } else { Err(Error::Sampling { name, found: f64::from(x), allowed }) }
        };
        range("temperature", self.temperature, 0.0, 100.0, "0 to 100")?;
        range("top-p", self.top_p, f32::MIN_POSITIVE, 1.0, "above 0 and at most 1")?;
        range("min-p", self.min_p, 0.0, 1.0, "0 to 1")?;
        range("repeat-penalty", self.repeat_penalty, 0.01, 100.0, "0.01 to 100")
    }
}

/// A token still in the running: logit (later weight) and id.
type Candidate = (f32, u32);

/// Draws tokens; reuses its memory, so a steady state allocates nothing.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    candidates: Vec<Candidate>,
    draws: u64,
}

impl Sampler {
    /// A sampler for a vocabulary of that size.
    pub fn new(sampling: Sampling, vocab: usize) -> Sampler {
        Sampler { sampling, candidates: Vec::with_capacity(vocab), draws: 0 }
    }

    /// The next token; `recent` is everything so far, the last token last.
    pub fn sample(&mut self, logits: &[f32], recent: &[u32]) -> u32 {
        self.candidates.clear();
        self.candidates.extend(logits.iter().zip(0..).map(|(&logit, id)| (logit, id)));
        self.penalise(recent);
        if self.sampling.temperature == 0.0 {
            let best = self
                .candidates
                .iter()
                .copied()
                .reduce(|best, next| if next.0 > best.0 { next } else { best });
            return best.map_or(0, |best| best.1);
        }
        self.keep_top_k();
        self.weigh();
        self.keep_top_p();
        self.draw()
    }

    fn penalise(&mut self, recent: &[u32]) {
        let Sampling { repeat_penalty, repeat_last_n, .. } = self.sampling;
        if repeat_penalty == 1.0 {
            return;
        }
        let recent = &recent[recent.len().saturating_sub(repeat_last_n)..];
        for (i, id) in recent.iter().enumerate() {
            if recent[..i].contains(id) {
                continue;
            }
            let Some((logit, _)) = self.candidates.get_mut(*id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repeat_penalty } else { *logit * repeat_penalty };
        }
    }

    fn keep_top_k(&mut self) {
        let k = self.sampling.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier_first);
            self.candidates.truncate(k);
        }
    }

    /// Turns logits into unnormalised probabilities at the temperature 1, drops by min-p, keeps the logit order.
    fn weigh(&mut self) {
        let max = self.candidates.iter().map(|c| c.0).fold(f32::NEG_INFINITY, f32::max);
        let min_p = self.sampling.min_p;
        self.candidates.iter_mut().for_each(|c| c.0 = (c.0 - max).exp());
        self.candidates.retain(|c| c.0 >= min_p && c.0 > 0.0);
    }

    fn keep_top_p(&mut self) {
        let top_p = f64::from(self.sampling.top_p);
        if top_p < 1.0 {
            let total: f64 = self.candidates.iter().map(|c| f64::from(c.0)).sum();
            // Sort a growing head: most probability sits in a few tokens of a large vocabulary.
            let mut head = 0;
            let mut kept = None;
            while kept.is_none() {
                head = (head * 4).max(256).min(self.candidates.len());
                if head < self.candidates.len() {
                    self.candidates.select_nth_unstable_by(head - 1, likelier_first);
                }
                self.candidates[..head].sort_unstable_by(likelier_first);
                let mut sum = 0.0;
                kept = self.candidates[..head].iter().position(|c| {
                    sum += f64::from(c.0);
                    sum >= top_p * total
                });
                if kept.is_none() && head == self.candidates.len() {
                    return;
                }
            }
            self.candidates.truncate(kept.map_or(1, |last| last + 1));
        }
    }

    fn draw(&mut self) -> u32 {
        let inverse = 1.0 / f64::from(self.sampling.temperature);
        // In order of id, so that the draw does not depend on how the selection moved candidates.
        self.candidates.sort_unstable_by_key(|c| c.1);
        let weight = |c: &Candidate| f64::from(c.0).powf(inverse);
        let total: f64 = self.candidates.iter().map(weight).sum();
        let mut left = self.uniform() * total;
        for candidate in &self.candidates {
            left -= weight(candidate);
            if left < 0.0 {
                return candidate.1;
            }
        }
        self.candidates.last().map_or(0, |last| last.1)
    }

    /// Uniform in 0..1: SplitMix64 of seed and number of the draw, so a draw depends on nothing else.
    fn uniform(&mut self) -> f64 {
        self.draws += 1;
        let mix = |z: u64| {
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let seed = mix(self.sampling.seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let bits = mix(seed.wrapping_add(self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Larger logits first, lower ids first on ties; a total order.
fn likelier_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, logits.len());
        let mut counts = vec![0; logits.len()];
        (0..draws).for_each(|_| counts[sampler.sample(logits, &[]) as usize] += 1);
        counts
    }

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, ..Sampling::default() }
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
        let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..Sampling::default() }, logits.len());
            (0..50).map(|_| sampler.sample(&logits, &[])).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
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
}
