//! `router`: every rule, ties, groups, corrections, NaN.

use amoeba_kernels::router::{Learned, reference, take_weight};
use amoeba_kernels::testing::{Rng, router_rule as rule};
use amoeba_plan::{Groups, Op, RouterOp, RouterRule, Score};

use crate::bench::Bench;

/// The route of one row; checked against the reference unless the logits have NaN.
fn check(rule: &RouterRule, learned: Learned<'_>, gated: bool, logits: &[f32]) -> Option<Vec<f32>> {
    let mut bench = Bench::new()?;
    bench.plain_rows(1);
    let x = bench.buffer(logits.len(), 2, logits);
    let [out, gate] = [2 * rule.top_k, 1].map(|width| bench.buffer(width, 2, &[]));
    let [correction, per_expert] =
        [learned.correction, learned.per_expert].map(|v| v.map(|v| bench.vector(v)));
    let (experts, input_gate) = (logits.len(), gated.then_some(gate));
    let plain = rule.clone();
    let op = RouterOp { logits: x, out, experts, rule: plain, correction, per_expert, input_gate };
    bench.run(Op::Router(op), 2);
    let route = bench.row(out, 0);
    let mut truth = vec![0.0; 2 * rule.top_k];
    reference::route(rule, learned, logits, &mut truth);
    if gated {
        let weight = take_weight(&mut truth);
        assert!((bench.row(gate, 0)[0] - weight).abs() <= 1e-6 * weight.abs());
    }
    if logits.iter().all(|x| !x.is_nan()) {
        let k = rule.top_k;
        assert_eq!(route[..k], truth[..k], "choice of {rule:?}");
        for (fast, truth) in route[k..].iter().zip(&truth[k..]) {
            assert!((fast - truth).abs() <= 1e-6 * truth.abs(), "{rule:?}: {fast} vs {truth}");
        }
    }
    assert!(bench.row(out, 1).iter().all(|x| x.is_nan()), "rows past the last are left alone");
    Some(route)
}

#[test]
fn every_rule_follows_the_reference() {
    let mut rng = Rng(11);
    for score in [Score::Softmax, Score::TopKSoftmax, Score::Sigmoid, Score::SparseMixer { jitter: 0.01 }] {
        for (experts, top_k) in [(1, 1), (8, 2), (60, 4), (128, 8), (512, 10)] {
            let logits: Vec<f32> = rng.vector(experts).iter().map(|x| x * 8.0).collect();
            let (bias, factors) = (rng.vector(experts), rng.vector(experts));
            let plain = rule(score, top_k);
            check(&plain, Learned { correction: None, per_expert: Some(&factors) }, top_k == 1, &logits);
            if matches!(score, Score::SparseMixer { .. }) {
                continue;
            }
            let rule = RouterRule { normalise: Some(1e-20), scale: 2.5, ..plain };
            let learned = Learned { correction: Some(&bias), per_expert: None };
            check(&rule, learned, false, &logits);
            if experts == 60 || experts == 128 {
                for best_two in [false, true] {
                    let groups = Some(Groups { count: 4, keep: 2, best_two });
                    check(&RouterRule { groups, ..rule.clone() }, learned, false, &logits);
                }
            }
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index_and_nan_shows() {
    let Some(route) = check(&rule(Score::Softmax, 2), Learned::default(), false, &[1.0; 8]) else { return };
    assert_eq!(route[..2], [0.0, 1.0]);
    let logits = [0.0, 5.0, 5.0, 5.0, 5.0, 0.0, 1.0, 2.0];
    let route = check(&rule(Score::TopKSoftmax, 2), Learned::default(), false, &logits).unwrap();
    assert_eq!(route, [1.0, 2.0, 0.5, 0.5]);
    let logits = [0.5, 0.5, 0.5, f32::NAN, 0.5, 0.5, 0.5, 0.5];
    for score in [Score::Softmax, Score::SparseMixer { jitter: 0.01 }] {
        let route = check(&rule(score, 2), Learned::default(), false, &logits).unwrap();
        assert!(route[2..].iter().any(|weight| weight.is_nan()), "{score:?}: {route:?}");
    }
}
