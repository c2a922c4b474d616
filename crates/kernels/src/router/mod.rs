//! `router`: from logits over experts to the chosen ones and their weights.
//!
//! Contract: `logits [experts]`; `out [2·top_k]`: indices (exact small integers in f32) ascending, then their
//! weights in the same order. On ties the lowest index wins. A NaN logit is never chosen before a number; if
//! fewer than `top_k` are numbers the weights become NaN, which the engine reports. A single weight may be
//! taken out, to scale the expert's input instead ([`take_weight`]).

pub mod cpu;
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod cases;

use amoeba_plan::{GROUPS_MAX, Groups, RouterRule};

pub use cpu::route;

/// What a router has learned besides its projection, `[experts]` each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Learned<'a> {
    /// Added to the scores for the choice only.
    pub correction: Option<&'a [f32]>,
    /// Factor on the weight of each expert.
    pub per_expert: Option<&'a [f32]>,
}

/// Takes the weight of the only expert out of a route, where one is left.
pub fn take_weight(route: &mut [f32]) -> f32 {
    std::mem::replace(&mut route[1], 1.0)
}

/// Positions of the `k` largest values, ties to the lowest index, ascending; `f32::NEG_INFINITY` and NaN
/// lose.
fn top_k(values: &[f64], k: usize, picked: &mut [usize]) {
    for n in 0..k {
        let mut best: Option<usize> = None;
        for (i, value) in values.iter().enumerate() {
            let taken = picked[..n].contains(&i);
            if !taken && best.is_none_or(|best| *value > values[best] || values[best].is_nan()) {
                best = Some(i);
            }
        }
        picked[n] = best.unwrap_or(0);
    }
    picked[..k].sort_unstable();
}

/// Sets the scores of all but the best groups to zero, as DeepSeek's and mlx-lm's routers do: the scores that
/// decide the choice, a correction included.
fn limit_groups(scores: &mut [f64], groups: Groups) {
    let size = scores.len() / groups.count;
    let mut best = [0.0; GROUPS_MAX];
    for (best, group) in best.iter_mut().zip(scores.chunks_exact(size)) {
        let mut top = [0; 2];
        let n = if groups.best_two { 2.min(size) } else { 1 };
        top_k(group, n, &mut top);
        *best = top[..n].iter().map(|&i| group[i]).sum();
    }
    let mut kept = [0; GROUPS_MAX];
    top_k(&best[..groups.count], groups.keep, &mut kept);
    for (i, group) in scores.chunks_exact_mut(size).enumerate() {
        if !kept[..groups.keep].contains(&i) {
            group.fill(0.0);
        }
    }
}

/// Factor that normalises and scales picked weights of sum `sum`.
fn factor(rule: &RouterRule, sum: f64) -> f64 {
    rule.normalise.map_or(1.0, |eps| 1.0 / (sum + f64::from(eps))) * f64::from(rule.scale)
}
