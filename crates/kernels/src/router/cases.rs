//! Cases of `router`: every rule, ties, one expert, all experts, groups, corrections.

use amoeba_plan::{Groups, RouterRule, Score};

use super::{cpu, reference};
use crate::testing::Rng;

fn rule(score: Score, top_k: usize) -> RouterRule {
    RouterRule { top_k, score, correction: None, groups: None, normalise: None, scale: 1.0, per_expert: None }
}

fn both(rule: &RouterRule, correction: Option<&[f32]>, logits: &[f32]) -> Vec<f32> {
    let (mut truth, mut fast) = (vec![0.0; 2 * rule.top_k], vec![0.0; 2 * rule.top_k]);
    reference::route(rule, correction, logits, &mut truth);
    cpu::route(rule, correction, logits, &mut cpu::Scratch::new(logits.len()), &mut fast);
    let k = rule.top_k;
    assert_eq!(fast[..k], truth[..k], "choice of {rule:?}");
    for (fast, truth) in fast[k..].iter().zip(&truth[k..]) {
        assert!((fast - truth).abs() <= 1e-6 * truth.abs(), "{rule:?}: {fast} vs {truth}");
    }
    fast
}

#[test]
fn every_rule_follows_the_reference() {
    let mut rng = Rng(8);
    for score in [Score::Softmax, Score::TopKSoftmax, Score::Sigmoid] {
        for (experts, top_k) in [(1, 1), (2, 1), (8, 2), (8, 8), (60, 4), (128, 8), (512, 10)] {
            for normalise in [None, Some(0.0), Some(1e-20)] {
                let logits: Vec<f32> = rng.vector(experts).iter().map(|x| x * 8.0).collect();
                let bias = rng.vector(experts);
                let rule = RouterRule { normalise, scale: 2.5, ..rule(score, top_k) };
                both(&rule, None, &logits);
                both(&rule, Some(&bias), &logits);
                if experts % 4 == 0 && top_k <= experts / 2 {
                    let groups = Groups { count: 4, keep: 2, best_two: true };
                    both(&RouterRule { groups: Some(groups), ..rule.clone() }, Some(&bias), &logits);
                    both(
                        &RouterRule { groups: Some(Groups { best_two: false, ..groups }), ..rule },
                        None,
                        &logits,
                    );
                }
            }
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    let out = both(&rule(Score::Softmax, 3), None, &[1.0; 8]);
    assert_eq!(out[..3], [0.0, 1.0, 2.0]);
    let out = both(&rule(Score::TopKSoftmax, 2), None, &[0.0, 5.0, 5.0, 5.0]);
    assert_eq!(out, [1.0, 2.0, 0.5, 0.5]);
}

#[test]
fn a_nan_logit_shows_in_the_weights() {
    let mut logits = [0.5; 8];
    logits[3] = f32::NAN;
    let mut out = vec![0.0; 4];
    cpu::route(&rule(Score::Softmax, 2), None, &logits, &mut cpu::Scratch::new(8), &mut out);
    assert!(out[2..].iter().any(|weight| weight.is_nan()));
}
