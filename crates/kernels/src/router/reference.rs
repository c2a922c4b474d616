//! Scalar reference of `router` in f64.

use amoeba_plan::{RouterOp, RouterRule, Score};

use super::{Learned, factor, limit_groups, take_weight, top_k};
use crate::reference::Row;

/// Runs the op.
pub fn run(op: &RouterOp, row: &mut Row<'_>) {
    let [correction, per_expert] = [op.correction, op.per_expert].map(|id| row.vector(id));
    let mut out = vec![0.0; 2 * op.rule.top_k];
    route(&op.rule, Learned { correction, per_expert }, &row.buffer(op.logits)[..op.experts], &mut out);
    if let Some(gate) = op.input_gate {
        *row.buffer_mut(gate) = vec![take_weight(&mut out)];
    }
    *row.buffer_mut(op.out) = out;
}

/// Routes one row.
pub fn route(rule: &RouterRule, learned: Learned<'_>, logits: &[f32], out: &mut [f32]) {
    let logits: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    let (picked, weights) = match rule.score {
        Score::SparseMixer { jitter } => sparse_mixer(&logits, rule.top_k, f64::from(jitter)),
        _ => best(rule, learned, &logits),
    };
    let factor = factor(rule, weights.iter().sum());
    let (indices, out_weights) = out.split_at_mut(rule.top_k);
    for i in 0..rule.top_k {
        let own = learned.per_expert.map_or(1.0, |per_expert| f64::from(per_expert[picked[i]]));
        indices[i] = picked[i] as f32;
        out_weights[i] = (weights[i] * factor * own) as f32;
    }
}

/// The best by score, with their scores.
fn best(rule: &RouterRule, learned: Learned<'_>, logits: &[f64]) -> (Vec<usize>, Vec<f64>) {
    let scores = match rule.score {
        Score::Softmax => softmax(logits),
        Score::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Score::TopKSoftmax | Score::SparseMixer { .. } => logits.to_vec(),
    };
    let mut choice: Vec<f64> = scores.clone();
    if let Some(correction) = learned.correction {
        choice.iter_mut().zip(correction).for_each(|(choice, &bias)| *choice += f64::from(bias));
    }
    if let Some(groups) = rule.groups {
        limit_groups(&mut choice, groups);
    }
    let mut picked = vec![0; rule.top_k];
    top_k(&choice, rule.top_k, &mut picked);
    let mut weights: Vec<f64> = picked.iter().map(|&i| scores[i]).collect();
    if rule.score == Score::TopKSoftmax {
        weights = softmax(&weights);
    }
    (picked, weights)
}

/// Pick after pick: the best of those left, weighed against those left that are close to it.
fn sparse_mixer(logits: &[f64], k: usize, jitter: f64) -> (Vec<usize>, Vec<f64>) {
    let mut left = logits.to_vec();
    let mut picks = Vec::new();
    for _ in 0..k {
        let mut picked = [0];
        top_k(&left, 1, &mut picked);
        let top = left[picked[0]];
        let band: Vec<f64> = (0..left.len())
            .map(|i| {
                let far = (top - logits[i]) / logits[i].abs().max(top) > 2.0 * jitter;
                if far { f64::NEG_INFINITY } else { left[i] }
            })
            .collect();
        picks.push((picked[0], softmax(&band)[picked[0]]));
        left[picked[0]] = f64::NEG_INFINITY;
    }
    picks.sort_by_key(|(expert, _)| *expert);
    picks.into_iter().unzip()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}
