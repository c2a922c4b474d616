//! x as integers: up to three balanced base-256 digits per value, for products of small integers.
//!
//! Within a group, x ≈ scale · (65536·a + 256·b + c) with a, b, c in -128..=127 and scale = max|x| /
//! 8,355,000, close to what f32 arithmetic has ([`Arrangement::step`]). Products with codes below 256 are
//! summed exactly in i32 (128 · 255 · 128 < 2^22), so the order of summation is free and every instruction
//! set gives the same bits. Two digits or one are faster with many rows, and miss the contract for f32
//! activations (NOTES.md): on request only.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use amoeba_checkpoint::Format;

use crate::simd::{LANES, Simd, dispatch};

/// Digits of every value of x.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Digits {
    /// 8 bits, as other engines round x to for products with quantised weights.
    One,
    /// 16 bits.
    Two,
    /// 24 bits: what f32 holds.
    #[default]
    Three,
}

impl Digits {
    /// All of them.
    pub const ALL: [Digits; 3] = [Digits::One, Digits::Two, Digits::Three];

    /// How many.
    pub const fn count(self) -> usize {
        match self {
            Digits::One => 1,
            Digits::Two => 2,
            Digits::Three => 3,
        }
    }

    /// The largest integer of these balanced digits, or just below it where f32 could round past it.
    const fn largest(self) -> f32 {
        match self {
            Digits::One => 127.0,
            Digits::Two => 32_639.0,
            Digits::Three => 8_355_000.0,
        }
    }
}

/// How the digits of a group lie: a plane of words for each digit, highest first, a word being four columns
/// that the same shift of a word of codes brings side by side. Follows from the format of the matrix that
/// multiplies x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Columns of a group.
    pub group: usize,
    /// Width of the low plane of the codes: 2, 4 or 8.
    pub plane: usize,
    /// Digits of every value.
    pub digits: Digits,
}

/// f32 slots before the digits of a group: scale, sum of the integers, and the sums of each digit (as i32
/// bits).
pub(super) const HEADER: usize = 2 + MOST;
/// Digits per value, at most.
pub(super) const MOST: usize = 3;
/// Least value taken for the largest of a group, so that its reciprocal is finite.
const SMALLEST: f32 = 1e-30;

impl Arrangement {
    /// What products with this format need; `None` if they take x as it is.
    pub fn of(format: Format, digits: Digits) -> Option<Arrangement> {
        let plane = match format {
            Format::Dense(_) | Format::Mxfp8 => return None,
            Format::Affine { bits: 2 | 3, .. } => 2,
            Format::Affine { bits: 8, .. } => 8,
            _ => 4,
        };
        Some(Arrangement { group: format.group(), plane, digits })
    }

    /// f32 slots of one prepared row of `cols` columns.
    pub fn len(self, cols: usize) -> usize {
        cols / self.group * self.group_len()
    }

    /// f32 slots of one group.
    pub(super) fn group_len(self) -> usize {
        HEADER + self.group / 4 * self.digits.count()
    }

    /// Bound on the error of a value, as a part of the largest of its group: half a step for the integer, and
    /// half an ulp each for the reciprocal, the product and the scale.
    pub(super) fn step(self) -> f64 {
        0.5 / f64::from(self.digits.largest()) + 3.0 / 16_777_216.0
    }

    /// Byte of digit `digit` of column `col`, counted after the header.
    #[cfg(test)]
    fn place(self, col: usize, digit: usize) -> usize {
        let (per_word, steps) = (32 / self.plane, 8 / self.plane);
        let (word, i) = (col / per_word, col % per_word);
        (digit * self.group / 4 + word * steps + i % steps) * 4 + i / steps
    }
}

dispatch! {
    /// Writes the groups of one row of x in that arrangement; `out` has [`Arrangement::len`] slots.
    pub fn prepare(arrangement: Arrangement, x: &[f32], out: &mut [f32]) = prepare_with
}

#[inline(always)]
fn prepare_with<S: Simd>(simd: S, arrangement: Arrangement, x: &[f32], out: &mut [f32]) {
    match arrangement.plane {
        2 => of_plane::<S, 2>(simd, arrangement, x, out),
        4 => of_plane::<S, 4>(simd, arrangement, x, out),
        _ => of_plane::<S, 8>(simd, arrangement, x, out),
    }
}

#[inline(always)]
fn of_plane<S: Simd, const PLANE: usize>(simd: S, arrangement: Arrangement, x: &[f32], out: &mut [f32]) {
    match arrangement.digits {
        Digits::One => groups::<S, PLANE, 1>(simd, arrangement, x, out),
        Digits::Two => groups::<S, PLANE, 2>(simd, arrangement, x, out),
        Digits::Three => groups::<S, PLANE, 3>(simd, arrangement, x, out),
    }
}

/// All groups of a row; the width of the plane is a constant, so that no index needs a division.
#[inline(always)]
fn groups<S: Simd, const PLANE: usize, const D: usize>(
    simd: S,
    arrangement: Arrangement,
    x: &[f32],
    out: &mut [f32],
) {
    let zero = simd.splat(0.0);
    let (largest_integer, plane_len) = (arrangement.digits.largest(), arrangement.group / 4);
    for (x, out) in x.chunks_exact(arrangement.group).zip(out.chunks_exact_mut(arrangement.group_len())) {
        let x = x.as_chunks::<LANES>().0;
        let (mut largest, mut poison) = (zero, zero);
        for i in 0..x.len() {
            let x = simd.load(&x[i]);
            largest = simd.max(largest, simd.max(x, simd.sub(zero, x)));
            poison = simd.fma(x, zero, poison);
        }
        let mut lanes = [0.0; LANES];
        simd.store(largest, &mut lanes);
        // In halves: a chain of sixteen was a third of the time of the whole function.
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = lanes[i].max(lanes[i + width]);
            }
            width /= 2;
        }
        let most = SMALLEST.max(lanes[0]);
        let (header, words) = out.split_at_mut(HEADER);
        let inverse = simd.splat(largest_integer / most);
        let mut sums = [simd.splat_i(0); D];
        for i in 0..x.len() {
            let mut rest = simd.to_int(simd.mul(simd.load(&x[i]), inverse));
            // From the lowest digit up; what is left is the highest.
            for place in 0..D {
                let digit = D - 1 - place;
                let value = if digit == 0 { rest } else { simd.low_digit(rest) };
                if digit > 0 {
                    rest = simd.next_digits(rest, value);
                }
                sums[digit] = simd.add_i(sums[digit], value);
                let packed = side_by_side::<PLANE>(simd.narrow(value));
                let words = &mut words[digit * plane_len + 4 * i..][..4];
                for word in 0..4 {
                    words[word] = f32::from_bits(packed[word]);
                }
            }
        }
        header.fill(0.0);
        let mut whole = 0;
        for digit in 0..D {
            let sum = simd.sum_i(sums[digit]);
            whole = 256 * whole + sum;
            header[2 + digit] = f32::from_bits(sum as u32);
        }
        // A NaN or infinity has no digits: it makes the scale NaN, and so every product.
        header[0] = most / largest_integer + crate::simd::sum(simd, poison);
        header[1] = whole as f32;
    }
}

/// The bytes of sixteen columns as four words, in the order of [`Arrangement`].
#[inline(always)]
fn side_by_side<const PLANE: usize>(bytes: [u8; LANES]) -> [u32; 4] {
    let (per_word, steps) = (32 / PLANE, 8 / PLANE);
    let mut words = [0; 4];
    for i in 0..4 {
        let first = i / steps * per_word + i % steps;
        words[i] = u32::from_le_bytes([
            bytes[first],
            bytes[first + steps],
            bytes[first + 2 * steps],
            bytes[first + 3 * steps],
        ]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;
    use crate::testing::Rng;

    #[test]
    fn digits_rebuild_x_within_a_step_on_every_instruction_set() {
        let mut rng = Rng(21);
        let shapes = [(16, 4), (32, 2), (64, 4), (128, 8)];
        for ((group, plane), digits) in shapes.into_iter().flat_map(|shape| Digits::ALL.map(|d| (shape, d))) {
            let arrangement = Arrangement { group, plane, digits };
            let mut x: Vec<f32> = rng.vector(2 * group).iter().map(|x| x * 3.0).collect();
            x[group..].fill(0.0);
            let mut first = vec![0.0; arrangement.len(x.len())];
            prepare(Isa::Scalar, arrangement, &x, &mut first);
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let bytes: Vec<u8> = first[HEADER..].iter().flat_map(|w| w.to_bits().to_le_bytes()).collect();
            for (col, x) in x[..group].iter().enumerate() {
                let digit = |d| f64::from(bytes[arrangement.place(col, d)] as i8);
                let whole = (0..digits.count()).fold(0.0, |whole, d| 256.0 * whole + digit(d));
                let back = f64::from(first[0]) * whole;
                let allowed = f64::from(largest) * arrangement.step();
                assert!((back - f64::from(*x)).abs() <= allowed, "{arrangement:?}: {back} vs {x}");
            }
            for isa in Isa::available() {
                let mut other = vec![0.0; first.len()];
                prepare(isa, arrangement, &x, &mut other);
                let same = other.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{arrangement:?} on {isa}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 64];
            x[17] = bad;
            let arrangement = Arrangement { group: 64, plane: 4, digits: Digits::Three };
            let mut out = vec![0.0; arrangement.len(64)];
            prepare(Isa::best(), arrangement, &x, &mut out);
            assert!(out[0].is_nan());
        }
    }
}
