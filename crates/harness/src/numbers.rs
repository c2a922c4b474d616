//! Distances between what two computations gave.

/// Index of the largest value, the lowest on ties.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if x > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// The largest logit less the second largest.
pub fn margin(logits: &[f32]) -> f64 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &x in logits {
        if x > first {
            (first, second) = (x, first);
        } else if x > second {
            second = x;
        }
    }
    f64::from(first) - f64::from(second)
}

/// Logarithm of the sum of the exponentials.
fn log_sum(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    sum.ln() + f64::from(max)
}

/// Negative log-likelihood of `token` in nats.
pub fn surprise(logits: &[f32], token: u32) -> f64 {
    log_sum(logits) - f64::from(logits[token as usize])
}

/// Kullback-Leibler divergence of the distribution of `q` from that of `p` in nats, both given as logits.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_sum, q_sum) = (log_sum(p), log_sum(q));
    let of_token = |(&p, &q): (&f32, &f32)| {
        let (p, q) = (f64::from(p) - p_sum, f64::from(q) - q_sum);
        p.exp() * (p - q)
    };
    // Rounding may leave a sum of terms of both signs just below zero; `max` would hide a NaN.
    let sum: f64 = p.iter().zip(q).map(of_token).sum();
    if sum < 0.0 { 0.0 } else { sum }
}

/// Distance of two vectors in units of the RMS of the true one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// RMS of the differences.
    pub rms: f64,
    /// Largest difference.
    pub max: f64,
}

impl Distance {
    /// Distance of `found` from `truth`, whose RMS counts as `least` at least. A NaN makes both numbers NaN,
    /// a difference in length both infinite.
    pub fn of(found: &[f32], truth: &[f32], least: f64) -> Distance {
        if found.len() != truth.len() {
            return Distance { rms: f64::INFINITY, max: f64::INFINITY };
        }
        let (mut squares, mut size, mut max) = (0.0, 0.0, 0.0f64);
        for (&a, &b) in found.iter().zip(truth) {
            let difference = f64::from(a) - f64::from(b);
            squares += difference * difference;
            size += f64::from(b) * f64::from(b);
            max = max.max(difference.abs());
        }
        let n = truth.len().max(1) as f64;
        let unit = (size / n).sqrt().max(least).max(f64::MIN_POSITIVE);
        let rms = (squares / n).sqrt() / unit;
        Distance { rms, max: if rms.is_nan() { f64::NAN } else { max / unit } }
    }
}

/// Whether `a` is a worse error than `b`: larger, or not a number.
pub fn worse(a: f64, b: f64) -> bool {
    a > b || a.is_nan()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_shifted_logits_and_known_for_two_tokens() {
        let p = [0.3, -2.0, 5.0, 1.0];
        let shifted = p.map(|x| x - 7.0);
        assert!(divergence(&p, &shifted).abs() < 1e-6);
        // p = (1/2, 1/2), q = (3/4, 1/4): KL = ½ ln(2/3) + ½ ln 2.
        let (p, q) = ([0.0, 0.0], [3f32.ln(), 0.0]);
        let expected = 0.5 * (2.0f64 / 3.0).ln() + 0.5 * 2.0f64.ln();
        assert!((divergence(&p, &q) - expected).abs() < 1e-7);
        assert!(divergence(&p, &[f32::NAN, 0.0]).is_nan());
    }

    #[test]
    fn distances_are_in_units_of_the_truth() {
        let distance = Distance::of(&[3.0, 4.0], &[3.0, 5.0], 0.0);
        let unit = 17f64.sqrt();
        assert!((distance.rms - 0.5f64.sqrt() / unit).abs() < 1e-12);
        assert!((distance.max - 1.0 / unit).abs() < 1e-12);
        assert_eq!(Distance::of(&[0.5], &[0.0], 1.0), Distance { rms: 0.5, max: 0.5 });
        let bad = Distance::of(&[f32::NAN, 1.0], &[1.0, 1.0], 0.0);
        assert!(bad.rms.is_nan() && bad.max.is_nan());
        assert!(Distance::of(&[1.0], &[], 0.0).rms.is_infinite());
    }

    #[test]
    fn the_best_token_and_its_margin() {
        assert_eq!((argmax(&[1.0, 3.0, 3.0]), margin(&[1.0, 3.0, 3.0])), (1, 0.0));
        assert_eq!((argmax(&[2.0, -1.0, 1.5]), margin(&[2.0, -1.0, 1.5])), (0, 0.5));
    }
}
