//! Scalar reference of `sample`: the contract, step by step.

use super::{Sampling, distance, fall, id_of, key, logit_of, needed, uniform, weight};

/// The token of draw number `draw` (from 1; greedy draws nothing); `recent` is everything so far, the last
/// token last.
///
/// # Panics
/// No logits.
pub fn sample(sampling: &Sampling, logits: &[f32], recent: &[u32], draw: u64) -> u32 {
    let window = sampling.window(recent);
    let penalised = |(id, &logit): (u32, &f32)| {
        let logit = if window.contains(&id) { sampling.penalised(logit) } else { logit };
        key(logit, id)
    };
    let mut keys: Vec<u64> = (0..).zip(logits).map(penalised).collect();
    keys.sort_unstable_by(|a, b| b.cmp(a));
    let (first, largest) = (id_of(keys[0]), logit_of(keys[0]));
    let inverse = sampling.inverse();
    if inverse == 0.0 {
        return first;
    }
    if sampling.top_k > 0 {
        keys.truncate(sampling.top_k);
    }
    let at = |key: u64, inverse: f64| weight(distance(largest, logit_of(key)) * inverse);
    keys.retain(|key| at(*key, 1.0) >= sampling.least());
    if sampling.top_p < 1.0 {
        let needed = needed(sampling.top_p, keys.iter().map(|key| at(*key, 1.0)).sum());
        let mut reached = 0;
        keys.retain(|key| {
            let before = reached;
            reached += at(*key, 1.0);
            before < needed
        });
    }
    keys.sort_unstable_by_key(|key| id_of(*key));
    let sum = keys.iter().map(|key| at(*key, inverse)).sum();
    let fall = fall(uniform(sampling.seed, draw), sum);
    let mut counted = 0;
    let drawn = keys.iter().find(|key| {
        counted += at(**key, inverse);
        counted > fall
    });
    drawn.map_or(first, |key| id_of(*key))
}
