//! Cases of `router`: every rule, ties, one expert, all experts, groups, corrections.

use amoeba_plan::{Groups, RouterRule, Score};

use super::{Learned, cpu, reference, take_weight};
use crate::testing::{Rng, router_rule as rule};

fn both(rule: &RouterRule, correction: Option<&[f32]>, logits: &[f32]) -> Vec<f32> {
    learned(rule, Learned { correction, per_expert: None }, logits)
}

fn learned(rule: &RouterRule, learned: Learned<'_>, logits: &[f32]) -> Vec<f32> {
    let (mut truth, mut fast) = (vec![0.0; 2 * rule.top_k], vec![0.0; 2 * rule.top_k]);
    reference::route(rule, learned, logits, &mut truth);
    cpu::route(rule, learned, logits, &mut cpu::Scratch::new(logits.len()), &mut fast);
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
    for score in [Score::Softmax, Score::SparseMixer { jitter: 0.01 }] {
        let rule = rule(score, 2);
        cpu::route(&rule, Learned::default(), &logits, &mut cpu::Scratch::new(8), &mut out);
        assert!(out[2..].iter().any(|weight| weight.is_nan()), "{score:?}");
    }
}

#[test]
fn each_expert_scales_its_own_weight() {
    let mut rng = Rng(9);
    for score in [Score::Softmax, Score::TopKSoftmax, Score::Sigmoid, Score::SparseMixer { jitter: 0.2 }] {
        let (logits, per_expert) = (rng.vector(60), rng.vector(60));
        let rule = RouterRule { normalise: Some(0.0), ..rule(score, 4) };
        let plain = both(&rule, None, &logits);
        let scaled = learned(&rule, Learned { correction: None, per_expert: Some(&per_expert) }, &logits);
        assert_eq!(scaled[..4], plain[..4], "the choice is the same");
        for i in 0..4 {
            assert_eq!(scaled[4 + i], plain[4 + i] * per_expert[plain[i] as usize]);
        }
    }
}

#[test]
fn sparse_mixers_weigh_against_near_rivals_only() {
    let mixer = |jitter, k| rule(Score::SparseMixer { jitter }, k);
    let mut rng = Rng(10);
    for jitter in [0.0, 0.01, 0.1, 0.5] {
        for (experts, top_k) in [(1, 1), (4, 4), (16, 2), (64, 6)] {
            let logits: Vec<f32> = rng.vector(experts).iter().map(|x| x * 8.0).collect();
            both(&mixer(jitter, top_k), None, &logits);
            both(&mixer(jitter, top_k), None, &logits.iter().map(|x| -x.abs()).collect::<Vec<_>>());
        }
    }
    // 2 and 1.9 are within 10 % of each other, 1 is not; then 1.9 has no rival left, being alone within 10 %.
    let out = both(&mixer(0.05, 2), None, &[1.0, 2.0, 1.9]);
    assert_eq!(out[..2], [1.0, 2.0]);
    assert!((f64::from(out[2]) - 1.0 / (1.0 + (-0.1f64).exp())).abs() < 1e-6 && out[3] == 1.0, "{out:?}");
    // Ties: the lower expert first, and the second no longer meets it.
    assert_eq!(both(&mixer(0.01, 2), None, &[0.0, 3.0, 3.0]), [1.0, 2.0, 0.5, 1.0]);
}

#[test]
fn losing_groups_compete_with_a_score_of_zero() {
    // Groups {0, 1}, {2, 3}: the second wins by its best, the first by its two best.
    let (scores, k) = ([2.0, 1.5, 3.0, -1.0], 2);
    let groups = Groups { count: 2, keep: 1, best_two: false };
    let limited =
        |best_two| RouterRule { groups: Some(Groups { best_two, ..groups }), ..rule(Score::TopKSoftmax, k) };
    // Expert 3 has a score below that of the losers, of whom the first is taken.
    assert_eq!(both(&limited(false), None, &scores)[..k], [0.0, 2.0]);
    assert_eq!(both(&limited(true), None, &scores)[..k], [0.0, 1.0]);
    // Equal groups: the first is kept.
    assert_eq!(both(&limited(false), None, &[1.0; 4])[..k], [0.0, 1.0]);
    // As many groups as there may be.
    let most = Groups { count: amoeba_plan::GROUPS_MAX, keep: 3, best_two: true };
    let logits = Rng(12).vector(2 * most.count);
    both(&RouterRule { groups: Some(most), ..rule(Score::Sigmoid, 4) }, None, &logits);
}

#[test]
fn a_single_weight_can_go_to_the_input() {
    let mut out = both(&rule(Score::Sigmoid, 1), None, &[-1.0, 0.0, -2.0]);
    assert_eq!((take_weight(&mut out), &out[..]), (0.5, &[1.0, 1.0][..]));
}
