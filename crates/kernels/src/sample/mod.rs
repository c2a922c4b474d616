//! `sample`: from the logits of a row, f32 `[vocab]`, to a token.
//!
//! 1. Repeat penalty: a logit above 0 of a token among the last `repeat_last_n` is divided by
//!    `repeat_penalty`, any other one is multiplied by it; once per token, in f32.
//! 2. Temperature 0: the largest logit, the lowest id on ties. Otherwise, all in the order of the logits,
//!    ties by id:
//! 3. top-k: the first k.
//! 4. A weight for each, [`weight`] of its distance from the largest logit: `e^-distance` in units of 2^-44.
//!    Dropped are weights of 0 and those below `min_p` times the largest.
//! 5. top-p: the shortest head whose weights reach `top_p` times their sum.
//! 6. Temperature: the weights of `distance / temperature`. One of the tokens is drawn by them, counted up in
//!    the order of their ids: the first at which the sum exceeds `sum · u / 2^64`, `u` being [`uniform`].
//!
//! If all weights are 0, which finite logits do not give, it is the largest logit. That the logits are finite
//! is for the caller to see to; -∞ is a token that is never drawn.
//!
//! **Same draws everywhere.** The steps from the logit to the weight are single IEEE operations in f64, none
//! of them fused; from there on all is integers. So sums may be taken in any order, and the token is the same
//! on every device.

pub mod cpu;
pub mod cuda;
pub mod reference;

#[cfg(test)]
mod cases;

use std::fmt;

/// Sampling parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy, the lowest id on ties.
    pub temperature: f32,
    /// Keep the most likely tokens whose probabilities add up to this; 1 is off.
    pub top_p: f32,
    /// Number of most likely tokens to keep; 0 is off.
    pub top_k: usize,
    /// Drop tokens less likely than this times the most likely one; 0 is off.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens (Keskar et al. 2019); 1 is off.
    pub repeat_penalty: f32,
    /// How many recent tokens are penalised.
    pub repeat_last_n: usize,
    /// Seed of the draws; the same seed, prompt and build give the same text.
    pub seed: u64,
}

/// A sampling number outside its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutOfRange {
    /// Name of the option.
    pub name: &'static str,
    /// What was given.
    pub found: f64,
    /// What is allowed.
    pub allowed: &'static str,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}; it must be {}", self.name, self.found, self.allowed)
    }
}

impl std::error::Error for OutOfRange {}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.7,
            top_p: 0.95,
            top_k: 40,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Greedy decoding.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first one outside its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let range = |name, x: f32, from: f32, to: f32, allowed| {
            let inside = (from..=to).contains(&x);
            if inside { Ok(()) } else { Err(OutOfRange { name, found: f64::from(x), allowed }) }
        };
        range("temperature", self.temperature, 0.0, 100.0, "0 to 100")?;
        range("top-p", self.top_p, f32::MIN_POSITIVE, 1.0, "above 0 and at most 1")?;
        range("min-p", self.min_p, 0.0, 1.0, "0 to 1")?;
        range("repeat-penalty", self.repeat_penalty, 0.01, 100.0, "0.01 to 100")
    }

    /// What distances are multiplied by; 0 for greedy.
    fn inverse(&self) -> f64 {
        if self.temperature == 0.0 { 0.0 } else { 1.0 / f64::from(self.temperature) }
    }

    /// The least weight that min-p keeps.
    fn least(&self) -> u64 {
        ((f64::from(self.min_p) * ONE as f64).ceil() as u64).max(1)
    }

    /// The window of the repeat penalty; empty if that is off.
    fn window<'a>(&self, recent: &'a [u32]) -> &'a [u32] {
        let n = if self.repeat_penalty == 1.0 { 0 } else { self.repeat_last_n };
        &recent[recent.len().saturating_sub(n)..]
    }

    /// A logit under the penalty.
    fn penalised(&self, logit: f32) -> f32 {
        if logit > 0.0 { logit / self.repeat_penalty } else { logit * self.repeat_penalty }
    }
}

/// The weight of the most likely token. A sum over 2^20 tokens fits 64 bits.
pub const ONE: u64 = 1 << 44;

/// From here on a weight is 0: `e^-32` is a fifth of 2^-44.
pub const FAR: f64 = 32.0;

/// `e^-distance` in units of 1 / [`ONE`], to the nearest; 0 for NaN. The distance is not negative.
///
/// `e^-x = 2^-n · e^r` with `r = n·ln 2 - x` (Cody-Waite, ln 2 in two parts), and Taylor's polynomial of
/// degree 12 for `|r| ≤ ln 2 / 2`, off by at most 2e-16. The kernel has the same operations in the same
/// order.
pub fn weight(distance: f64) -> u64 {
    const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    if distance.is_nan() || distance >= FAR {
        return 0;
    }
    let n = (distance * std::f64::consts::LOG2_E + 0.5) as i32;
    let r = (f64::from(n) * LN_2[0] - distance) + f64::from(n) * LN_2[1];
    let mut p = TAYLOR[0];
    for coefficient in &TAYLOR[1..] {
        p = p * r + coefficient;
    }
    let scale = f64::from_bits(((1023 + 44 - n) as u64) << 52);
    (p * scale + 0.5) as u64
}

/// `1 / n!`, n from 12 down to 0.
const TAYLOR: [f64; 13] = [
    1.0 / 479_001_600.0,
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    1.0 / 2.0,
    1.0,
    1.0,
];

/// SplitMix64's output function (Steele et al. 2014).
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a generator's draws begin from.
fn stream(seed: u64) -> u64 {
    mix(seed.wrapping_add(GOLDEN))
}

/// 64 uniform bits for a draw, numbered from 1: they depend on nothing but seed and number.
pub fn uniform(seed: u64, draw: u64) -> u64 {
    mix(stream(seed).wrapping_add(draw.wrapping_mul(GOLDEN)))
}

/// Where in `0..sum` a draw falls.
fn fall(uniform: u64, sum: u64) -> u64 {
    ((u128::from(uniform) * u128::from(sum)) >> 64) as u64
}

/// How much of a sum of weights the head of top-p must reach.
fn needed(top_p: f32, sum: u64) -> u64 {
    (f64::from(top_p) * sum as f64).ceil() as u64
}

/// Orders tokens: larger logits, then lower ids have larger keys. Zeros of either sign are the same.
fn key(logit: f32, id: u32) -> u64 {
    let bits = if logit == 0.0 { 0 } else { logit.to_bits() };
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(!id)
}

/// The token of a key.
fn id_of(key: u64) -> u32 {
    !(key as u32)
}

/// The logit of a key.
fn logit_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

/// How far a logit is below the largest.
fn distance(largest: f32, logit: f32) -> f64 {
    f64::from(largest) - f64::from(logit)
}
