//! x as integers: three balanced base-256 digits per value, for products of small integers.
//!
//! Within a group, x ≈ scale · (65536·a + 256·b + c) with a, b, c in -128..=127 and scale = max|x| / 8,355,000: an
//! error of at most 2^-22 of the group's largest value (half a step each for the integer, the reciprocal, the product
//! and the scale), close to what f32 arithmetic has. Products with codes
//! below 256 are summed exactly in i32 (128 · 255 · 128 < 2^22), so the order of summation is free and every
//! instruction set gives the same bits.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use amoeba_checkpoint::Format;

use crate::simd::{Simd, dispatch};

/// How the digits of a group lie side by side: words of four columns that the same shift of a word of codes brings
/// side by side, the digits of a word one after another. Follows from the format of the matrix that multiplies x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Columns of a group.
    pub group: usize,
    /// Width of the low plane of the codes: 2, 4 or 8.
    pub plane: usize,
}

/// f32 slots before the digits of a group: sum of x, scale, and the sums of each digit (as i32 bits).
pub(super) const HEADER: usize = 5;
/// Digits per value.
pub(super) const DIGITS: usize = 3;
/// Just below 127·(65536 + 256 + 1), the largest integer of three balanced digits, so that rounding cannot pass it.
const LARGEST: f32 = 8_355_000.0;
/// Most columns of a group.
const GROUP_MAX: usize = 128;

impl Arrangement {
    /// What products with this format need; `None` if they take x as it is.
    pub fn of(format: Format) -> Option<Arrangement> {
        let plane = match format {
            Format::Dense(_) | Format::Mxfp8 => return None,
            Format::Affine { bits: 2 | 3, .. } => 2,
            Format::Affine { bits: 8, .. } => 8,
            _ => 4,
        };
        Some(Arrangement { group: format.group(), plane })
    }

    /// f32 slots of one prepared row of `cols` columns.
    pub fn len(self, cols: usize) -> usize {
        cols / self.group * self.group_len()
    }

    /// f32 slots of one group.
    pub(super) fn group_len(self) -> usize {
        HEADER + self.group * DIGITS / 4
    }

    /// Byte of digit `digit` of column `col` behind the header: words of four columns that the same shift of a
    /// word of codes brings side by side, the digits of a word one after another.
    #[cfg(test)]
    fn place(self, col: usize, digit: usize) -> usize {
        let (per_word, steps) = (32 / self.plane, 8 / self.plane);
        let (word, i) = (col / per_word, col % per_word);
        (((word * steps + i % steps) * DIGITS) + digit) * 4 + i / steps
    }
}

dispatch! {
    /// Writes the groups of one row of x in that arrangement; `out` has [`Arrangement::len`] slots.
    pub fn prepare(arrangement: Arrangement, x: &[f32], out: &mut [f32]) = prepare_with
}

#[inline(always)]
fn prepare_with<S: Simd>(_: S, arrangement: Arrangement, x: &[f32], out: &mut [f32]) {
    match arrangement.plane {
        2 => groups::<2>(arrangement, x, out),
        4 => groups::<4>(arrangement, x, out),
        _ => groups::<8>(arrangement, x, out),
    }
}

/// All groups of a row; the width of the plane is a constant, so that no index needs a division.
#[inline(always)]
fn groups<const PLANE: usize>(arrangement: Arrangement, x: &[f32], out: &mut [f32]) {
    let group = arrangement.group;
    for (x, out) in x.chunks_exact(group).zip(out.chunks_exact_mut(arrangement.group_len())) {
        let (mut largest, mut sums) = ([0.0f32; 16], [0.0f32; 16]);
        for x in x.as_chunks::<16>().0 {
            for i in 0..16 {
                largest[i] = largest[i].max(x[i].abs());
                sums[i] += x[i];
            }
        }
        let (mut most, mut sum) = (0.0f32, 0.0);
        for i in 0..16 {
            most = most.max(largest[i]);
            sum += sums[i];
        }
        let inverse = if most > 0.0 { LARGEST / most } else { 0.0 };
        let mut whole = [0i32; GROUP_MAX];
        for (whole, x) in whole.iter_mut().zip(x) {
            *whole = (x * inverse).round_ties_even() as i32;
        }
        let (header, words) = out.split_at_mut(HEADER);
        let digit_sums = split::<PLANE>(&whole[..group], words);
        // A NaN or infinity has no digits: it makes the scale NaN, and so every product.
        let finite = sum.is_finite() && (most == 0.0 || inverse.is_finite() && inverse > 0.0);
        header[0] = sum;
        header[1] = if finite { most / LARGEST } else { f32::NAN };
        for digit in 0..DIGITS {
            header[2 + digit] = f32::from_bits(digit_sums[digit] as u32);
        }
    }
}

/// Writes the digits of a group, words of four columns in the order of [`Arrangement`]; returns the digits' sums.
#[inline(always)]
fn split<const PLANE: usize>(whole: &[i32], words: &mut [f32]) -> [i32; DIGITS] {
    let (per_word, steps) = (32 / PLANE, 8 / PLANE);
    let mut sums = [0i32; DIGITS];
    for (whole, words) in whole.chunks_exact(per_word).zip(words.chunks_exact_mut(steps * DIGITS)) {
        for step in 0..steps {
            let mut packed = [0u32; DIGITS];
            for byte in 0..4 {
                let value = whole[step + byte * steps];
                let low = i32::from(value as i8);
                let rest = (value - low) >> 8;
                let middle = i32::from(rest as i8);
                let digits = [(rest - middle) >> 8, middle, low];
                for digit in 0..DIGITS {
                    sums[digit] += digits[digit];
                    packed[digit] |= u32::from(digits[digit] as u8) << (8 * byte);
                }
            }
            for digit in 0..DIGITS {
                words[step * DIGITS + digit] = f32::from_bits(packed[digit]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;
    use crate::testing::Rng;

    #[test]
    fn digits_rebuild_x_to_f32_accuracy_on_every_instruction_set() {
        let mut rng = Rng(21);
        for (group, plane) in [(16, 4), (32, 2), (64, 4), (128, 8)] {
            let arrangement = Arrangement { group, plane };
            let mut x: Vec<f32> = rng.vector(2 * group).iter().map(|x| x * 3.0).collect();
            x[group..].fill(0.0);
            let mut first = vec![0.0; arrangement.len(x.len())];
            prepare(Isa::Scalar, arrangement, &x, &mut first);
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let bytes: Vec<u8> = first[HEADER..].iter().flat_map(|w| w.to_bits().to_le_bytes()).collect();
            for (col, x) in x[..group].iter().enumerate() {
                let digit = |d| f64::from(bytes[arrangement.place(col, d)] as i8);
                let back = f64::from(first[1]) * (65536.0 * digit(0) + 256.0 * digit(1) + digit(2));
                assert!(
                    (back - f64::from(*x)).abs() <= f64::from(largest) * 4.0 / 16_777_216.0,
                    "{back} vs {x}"
                );
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
            let arrangement = Arrangement { group: 64, plane: 4 };
            let mut out = vec![0.0; arrangement.len(64)];
            prepare(Isa::best(), arrangement, &x, &mut out);
            assert!(out[1].is_nan());
        }
    }
}
