//! One measured row and how it prints.

use std::fmt;

use serde_json::{Value, json};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Prefill of so many tokens from an empty cache.
    Prefill(usize),
    /// Decode of `tokens` tokens, one at a time, behind `depth` cached ones.
    Decode {
        /// Tokens decoded.
        tokens: usize,
        /// Positions cached before.
        depth: usize,
    },
}

impl Test {
    /// Tokens per repetition.
    pub fn tokens(self) -> usize {
        match self {
            Test::Prefill(tokens) | Test::Decode { tokens, .. } => tokens,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Prefill(n) => write!(f, "pp{n}"),
            Test::Decode { tokens, depth: 0 } => write!(f, "tg{tokens}"),
            Test::Decode { tokens, depth } => write!(f, "tg{tokens}@{depth}"),
        }
    }
}

/// Median and spread of repetitions, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        let mut sorted: Vec<f64> = samples.iter().map(|&ns| ns as f64).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |q: f64| {
            let x = q * (sorted.len().max(1) - 1) as f64;
            let value = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
            value(x as usize) + x.fract() * (value((x.ceil()) as usize) - value(x as usize))
        };
        Spread { median: at(0.5), p10: at(0.1), p90: at(0.9) }
    }
}

/// One test with all its repetitions.
#[derive(Clone, Debug)]
pub struct Row {
    /// Model folder name.
    pub model: String,
    /// What was timed.
    pub test: Test,
    /// Device, instruction set, workers.
    pub device: String,
    /// Path through the experts and why.
    pub path: String,
    /// Every repetition.
    pub samples_ns: Vec<u64>,
    /// Weights one decoded token reads.
    pub bytes_per_token: f64,
    /// Bandwidth the machine reads with as many workers, bytes per second; `None` if not measured.
    pub bandwidth: Option<f64>,
    /// Loading, packing included.
    pub load_ns: u64,
    /// Bytes held by weights, caches and buffers.
    pub memory: usize,
}

impl Row {
    /// Tokens per second at the median.
    pub fn tokens_per_second(&self) -> f64 {
        self.test.tokens() as f64 * 1e9 / Spread::of(&self.samples_ns).median
    }

    /// Bytes of weights per second at the median; decode only, where every token reads its weights once.
    pub fn achieved(&self) -> Option<f64> {
        matches!(self.test, Test::Decode { .. }).then(|| self.bytes_per_token * self.tokens_per_second())
    }

    /// Share of the measured bandwidth.
    pub fn share_of_floor(&self) -> Option<f64> {
        Some(self.achieved()? / self.bandwidth?)
    }

    /// The row as JSON.
    pub fn json(&self) -> Value {
        let spread = Spread::of(&self.samples_ns);
        json!({
            "schema": 1,
            "model": self.model,
            "test": self.test.to_string(),
            "device": self.device,
            "path": self.path,
            "samples_ns": self.samples_ns,
            "median_ns": spread.median,
            "p10_ns": spread.p10,
            "p90_ns": spread.p90,
            "tok_s_median": self.tokens_per_second(),
            "bytes_per_token": self.bytes_per_token,
            "achieved_gb_s": self.achieved().map(|bytes| bytes / 1e9),
            "bandwidth_gb_s": self.bandwidth.map(|bytes| bytes / 1e9),
            "share_of_floor": self.share_of_floor(),
            "load_ms": self.load_ns as f64 / 1e6,
            "memory_bytes": self.memory,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = Spread::of(&self.samples_ns);
        let rate = |ns: f64| self.test.tokens() as f64 * 1e9 / ns;
        write!(f, "| {} | {} | {:.1} ", self.model, self.test, self.tokens_per_second())?;
        write!(f, "| {:.1}–{:.1} ", rate(spread.p90), rate(spread.p10))?;
        match self.achieved() {
            Some(bytes) => write!(f, "| {:.1} GB/s ", bytes / 1e9)?,
            None => f.write_str("| ")?,
        }
        match self.share_of_floor() {
            Some(share) => write!(f, "| {:.0} % ", share * 100.0)?,
            None => f.write_str("| ")?,
        }
        write!(f, "| {} | {} |", self.path, self.device)
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
    }
}
