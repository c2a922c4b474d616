//! Experts whose launches choose them, against the references of router and experts.

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::experts::reference::{Experts, Stored};
use amoeba_kernels::router::{Learned, reference};
use amoeba_kernels::testing::{OwnedMatrix, Rng, rms, router_rule, views};
use amoeba_plan::{Activation, ExpertWeights, ExpertsOp, Op, RouterOp, RouterRule, Score};

use crate::bench::Bench;

const FORMAT: Format = Format::Affine { bits: 4, group: 32, scale: Float::BF16 };
const HIDDEN: usize = 64;
const D_FF: usize = 32;

fn rule(score: Score, top_k: usize, normalise: Option<f32>) -> RouterRule {
    RouterRule { normalise, scale: 1.5, ..router_rule(score, top_k) }
}

/// Route and sum of one row; false if there is no compiler.
fn check(rule: &RouterRule, factors: Option<&[f32]>, logits: &[f32]) -> bool {
    let (mut rng, Some(mut bench)) = (Rng(29), Bench::new()) else { return false };
    let (experts, top_k) = (logits.len(), rule.top_k);
    let stacks = [(D_FF, HIDDEN), (D_FF, HIDDEN), (HIDDEN, D_FF)]
        .map(|(rows, cols)| OwnedMatrix::stack(FORMAT, experts, rows, cols, &mut rng));
    let views = stacks.each_ref().map(|stack| views(stack));
    let x: Vec<f32> = rng.vector(HIDDEN).iter().map(|x| x / 8.0).collect();
    bench.plain_rows(1);
    bench.share_launches(true);
    let [gate, up, down] = [0, 1, 2].map(|i| ExpertWeights { stack: bench.stack(&views[i]), bias: None });
    let per_expert = factors.map(|factors| bench.vector(factors));
    let [logits_id, x_id] = [logits, &x].map(|values| bench.buffer(values.len(), 2, values));
    let [route, out] = [2 * top_k, HIDDEN].map(|width| bench.buffer(width, 2, &[]));
    let (correction, input_gate, activation) = (None, None, Activation::SwiGlu);
    let plain = rule.clone();
    let router =
        RouterOp { logits: logits_id, out: route, experts, rule: plain, correction, per_expert, input_gate };
    let (x, hidden, d_ff, gate) = (x_id, HIDDEN, D_FF, Some(gate));
    let op = ExpertsOp { x, route, out, experts, top_k, hidden, d_ff, activation, gate, up, down };
    assert_eq!(bench.run_all(vec![Op::Router(router), Op::Experts(op)], 2), 2, "no launch for the router");

    let found = bench.row(route, 0);
    let mut truth = vec![0.0; 2 * top_k];
    reference::route(rule, Learned { correction: None, per_expert: factors }, logits, &mut truth);
    if logits.iter().any(|x| x.is_nan()) {
        assert!(found[top_k..].iter().all(|weight| weight.is_nan()), "{found:?}");
        return true;
    }
    assert_eq!(found[..top_k], truth[..top_k], "choice of {rule:?}");
    for (fast, truth) in found[top_k..].iter().zip(&truth[top_k..]) {
        assert!((fast - truth).abs() <= 1e-6 * truth.abs(), "{rule:?}: {fast} and {truth}");
    }
    let stored = |i: usize| Stored { matrices: &views[i], bias: None };
    let mut sum = vec![0.0; HIDDEN];
    let all = Experts { gate: Some(stored(0)), up: stored(1), down: stored(2), activation };
    all.sum(&bench.row(x_id, 0), &truth, &mut sum);
    let error = rms(&bench.row(out, 0), &sum);
    assert!(error <= 2e-6, "{rule:?}: {error:e} of the norm");
    assert!(bench.row(route, 1).iter().all(|x| x.is_nan()), "rows past the last are left alone");
    true
}

#[test]
fn every_size_and_both_scores() {
    let mut rng = Rng(31);
    for score in [Score::Softmax, Score::TopKSoftmax] {
        for (experts, top_k) in [(1, 1), (8, 2), (60, 4), (128, 8), (512, 10)] {
            let logits: Vec<f32> = rng.vector(experts).iter().map(|x| x * 8.0).collect();
            let factors = rng.vector(experts);
            check(&rule(score, top_k, None), Some(&factors), &logits);
            check(&rule(score, top_k, Some(1e-20)), None, &logits);
        }
    }
}

#[test]
fn equals_go_to_the_lowest_index_and_nan_shows() {
    // Equals on lanes of one turn, on one lane, and on both.
    let mut logits = vec![0.0; 128];
    check(&rule(Score::Softmax, 8, Some(0.0)), None, &logits);
    for index in [3, 35, 67, 40, 8, 127] {
        logits[index] = 2.0;
    }
    for top_k in [1, 2, 4, 6, 8] {
        check(&rule(Score::TopKSoftmax, top_k, None), None, &logits);
    }
    logits[1] = -0.0;
    logits[5] = f32::NEG_INFINITY;
    check(&rule(Score::Softmax, 8, None), None, &logits);
    logits[9] = f32::NAN;
    check(&rule(Score::Softmax, 8, None), None, &logits);
}
