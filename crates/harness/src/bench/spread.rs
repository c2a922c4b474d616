//! Median and percentiles of repetitions.

use serde::{Deserialize, Serialize};

/// Median and tenth and ninetieth percentile of some values, in their unit (ns of repetitions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Middle value.
    pub median: f64,
    /// A tenth are below.
    pub p10: f64,
    /// A tenth are above.
    pub p90: f64,
}

impl Spread {
    /// Quantiles of some values, interpolated.
    pub fn of(samples: &[u64]) -> Spread {
        Spread::of_values(samples.iter().map(|&ns| ns as f64).collect())
    }

    /// Quantiles of some values of any unit, interpolated.
    pub fn of_values(mut sorted: Vec<f64>) -> Spread {
        sorted.sort_by(f64::total_cmp);
        let at = |q: f64| {
            let x = q * (sorted.len().max(1) - 1) as f64;
            let value = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
            value(x as usize) + x.fract() * (value((x.ceil()) as usize) - value(x as usize))
        };
        Spread { median: at(0.5), p10: at(0.1), p90: at(0.9) }
    }

    /// Distance of the percentiles as a share of the median.
    pub fn relative(&self) -> f64 {
        (self.p90 - self.p10) / self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let spread = Spread::of(&[50, 10, 20, 40, 30]);
        assert_eq!((spread.median, spread.p10, spread.p90), (30.0, 14.0, 46.0));
        assert_eq!(Spread::of(&[7]).p90, 7.0);
        assert_eq!(Spread::of(&[2, 1]).median, 1.5);
        assert!((Spread::of(&[96, 100, 104]).relative() - 0.064).abs() < 1e-9);
        assert!(Spread::of(&[]).median.is_nan());
    }
}
