//! Scalar reference of `router` in f64.

use amoeba_plan::{RouterRule, Score};

use super::{factor, limit_groups, top_k};

/// Routes one row.
pub fn route(rule: &RouterRule, correction: Option<&[f32]>, logits: &[f32], out: &mut [f32]) {
    let logits: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    let scores = match rule.score {
        Score::Softmax => softmax(&logits),
        Score::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Score::TopKSoftmax => logits.clone(),
        Score::SparseMixer { .. } => unreachable!(),
    };
    let mut choice: Vec<f64> = scores.clone();
    if let Some(correction) = correction {
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
    let factor = factor(rule, weights.iter().sum());
    let (indices, out_weights) = out.split_at_mut(rule.top_k);
    for i in 0..rule.top_k {
        indices[i] = picked[i] as f32;
        out_weights[i] = (weights[i] * factor) as f32;
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}
