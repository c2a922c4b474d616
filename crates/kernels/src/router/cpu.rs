//! `router` without allocation: f64 scalar arithmetic on a caller's scratch. A few hundred experts cost about
//! a microsecond, and f64 keeps the choice independent of the instruction set.

use amoeba_plan::{Groups, RouterRule, Score};

use super::{Learned, factor, limit_groups};

/// Scratch of [`route`], sized once for a model.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    scores: Vec<f64>,
    choice: Vec<f64>,
}

impl Scratch {
    /// Room for `experts`.
    pub fn new(experts: usize) -> Scratch {
        Scratch { scores: vec![0.0; experts], choice: vec![0.0; experts] }
    }
}

/// Routes one row; `logits [experts]`, `out [2·top_k]`.
pub fn route(
    rule: &RouterRule,
    learned: Learned<'_>,
    logits: &[f32],
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let scores = &mut scratch.scores[..logits.len()];
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (score, &x) in scores.iter_mut().zip(logits) {
        *score = match rule.score {
            Score::Softmax => (f64::from(x) - f64::from(max)).exp(),
            Score::Sigmoid => 1.0 / (1.0 + (-f64::from(x)).exp()),
            Score::TopKSoftmax | Score::SparseMixer { .. } => f64::from(x),
        };
    }
    if rule.score == Score::Softmax {
        let sum: f64 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= sum);
    }
    let choice = &mut scratch.choice[..logits.len()];
    choice.copy_from_slice(scores);
    if let Some(correction) = learned.correction {
        choice.iter_mut().zip(correction).for_each(|(choice, &bias)| *choice += f64::from(bias));
    }
    if let Some(groups) = rule.groups {
        limit(choice, groups);
    }
    pick(rule, scores, choice, max, out);
    if let Some(per_expert) = learned.per_expert {
        let (indices, weights) = out.split_at_mut(rule.top_k);
        let pairs = weights.iter_mut().zip(indices.iter());
        pairs.for_each(|(weight, &index)| *weight *= per_expert[index as usize]);
    }
}

fn limit(choice: &mut [f64], groups: Groups) {
    if groups.keep < groups.count {
        limit_groups(choice, groups);
    }
}

/// Takes the `top_k` best of `choice` in place (taken ones become -inf), then weighs them by `scores`.
fn pick(rule: &RouterRule, scores: &mut [f64], choice: &mut [f64], max: f32, out: &mut [f32]) {
    let (indices, weights) = out.split_at_mut(rule.top_k);
    for n in 0..rule.top_k {
        let mut best = 0;
        for (i, &value) in choice.iter().enumerate() {
            if value > choice[best] || choice[best].is_nan() {
                best = i;
            }
        }
        if let Score::SparseMixer { jitter } = rule.score {
            // From here on the score of an expert that was taken is its weight.
            scores[best] = share_of_best(scores, choice, choice[best], jitter);
        }
        choice[best] = f64::NEG_INFINITY;
        // Insertion keeps the indices ascending.
        let at = indices[..n].partition_point(|&index| (index as usize) < best);
        indices.copy_within(at..n, at + 1);
        indices[at] = best as f32;
    }
    let raw = |index: f32| match rule.score {
        Score::TopKSoftmax => (scores[index as usize] - f64::from(max)).exp(),
        Score::Softmax | Score::Sigmoid | Score::SparseMixer { .. } => scores[index as usize],
    };
    let sum: f64 = indices.iter().map(|&index| raw(index)).sum();
    let within = if rule.score == Score::TopKSoftmax { 1.0 / sum } else { 1.0 };
    let factor = factor(rule, sum * within) * within;
    for (weight, &index) in weights.iter_mut().zip(indices.iter()) {
        *weight = (raw(index) * factor) as f32;
    }
}

/// Weight of the largest logit `top` in a softmax over those left that are close to it.
fn share_of_best(logits: &[f64], left: &[f64], top: f64, jitter: f32) -> f64 {
    // Not `<=`: NaN must take part.
    let far = |logit: f64| (top - logit) / logit.abs().max(top) > 2.0 * f64::from(jitter);
    let near = logits.iter().zip(left).filter(|(logit, _)| !far(**logit));
    1.0 / near.map(|(_, left)| (left - top).exp()).sum::<f64>()
}
