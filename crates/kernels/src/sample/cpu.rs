//! `sample` on the CPU: as little sorting as the filters allow, in memory that is reserved once.

use super::{Sampling, distance, fall, id_of, key, logit_of, needed, uniform, weight};

/// A token still in the running: its key, and its weight once that is known.
type Candidate = (u64, u64);

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
        self.candidates.extend(logits.iter().zip(0..).map(|(&logit, id)| (key(logit, id), 0)));
        self.penalise(recent);
        let best = self.candidates.iter().map(|candidate| candidate.0).max();
        let Some(best) = best.filter(|_| self.sampling.temperature != 0.0) else {
            return best.map_or(0, id_of);
        };
        self.draws += 1;
        self.keep_top_k();
        self.weigh(logit_of(best));
        self.keep_top_p();
        self.draw(logit_of(best)).unwrap_or(id_of(best))
    }

    fn penalise(&mut self, recent: &[u32]) {
        let recent = self.sampling.window(recent);
        for (i, id) in recent.iter().enumerate() {
            if recent[..i].contains(id) {
                continue;
            }
            let Some(candidate) = self.candidates.get_mut(*id as usize) else { continue };
            candidate.0 = key(self.sampling.penalised(logit_of(candidate.0)), *id);
        }
    }

    fn keep_top_k(&mut self) {
        let k = self.sampling.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier_first);
            self.candidates.truncate(k);
        }
    }

    fn weigh(&mut self, largest: f32) {
        let least = self.sampling.least();
        self.candidates.iter_mut().for_each(|c| c.1 = weight(distance(largest, logit_of(c.0))));
        self.candidates.retain(|c| c.1 >= least);
    }

    fn keep_top_p(&mut self) {
        if self.sampling.top_p >= 1.0 {
            return;
        }
        let needed = needed(self.sampling.top_p, self.candidates.iter().map(|c| c.1).sum());
        // Sort a growing head: most probability sits in a few tokens of a large vocabulary.
        let mut head = 0;
        while head < self.candidates.len() {
            head = (head * 4).max(256).min(self.candidates.len());
            if head < self.candidates.len() {
                self.candidates.select_nth_unstable_by(head - 1, likelier_first);
            }
            self.candidates[..head].sort_unstable_by(likelier_first);
            let mut sum = 0;
            let reached = self.candidates[..head].iter().position(|c| {
                sum += c.1;
                sum >= needed
            });
            if let Some(last) = reached {
                return self.candidates.truncate(last + 1);
            }
        }
    }

    fn draw(&mut self, largest: f32) -> Option<u32> {
        let inverse = self.sampling.inverse();
        self.candidates.sort_unstable_by_key(|c| id_of(c.0));
        if inverse != 1.0 {
            let weight = |c: &mut Candidate| c.1 = weight(distance(largest, logit_of(c.0)) * inverse);
            self.candidates.iter_mut().for_each(weight);
        }
        let sum = self.candidates.iter().map(|c| c.1).sum();
        let fall = fall(uniform(self.sampling.seed, self.draws), sum);
        let mut counted = 0;
        let drawn = self.candidates.iter().find(|c| {
            counted += c.1;
            counted > fall
        });
        drawn.map(|c| id_of(c.0))
    }
}

fn likelier_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.0.cmp(&a.0)
}
