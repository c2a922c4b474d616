//! x as integers: three balanced base-256 digits per value, for products of small integers.
//!
//! Within a group, x ≈ scale · (65536·a + 256·b + c) with a, b, c in -128..=127 and scale = max|x| / 8,355,000, close
//! to what f32 arithmetic has ([`STEP`]). Products with codes below 256 are summed exactly in i32
//! (128 · 255 · 128 < 2^22), so the order of summation is free and every instruction set gives the same bits.
//! Two digits would be a third faster with many rows, and miss the contract for f32 activations (NOTES.md).

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use amoeba_checkpoint::Format;

use crate::simd::{LANES, Simd, dispatch};

/// How the digits of a group lie side by side: words of four columns that the same shift of a word of codes brings
/// side by side, the digits of a word one after another. Follows from the format of the matrix that multiplies x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Columns of a group.
    pub group: usize,
    /// Width of the low plane of the codes: 2, 4 or 8.
    pub plane: usize,
}

/// f32 slots before the digits of a group: scale, sum of the integers, and the sums of each digit (as i32 bits).
pub(super) const HEADER: usize = 2 + DIGITS;
/// Digits per value.
pub(super) const DIGITS: usize = 3;
/// Just below 127·(65536 + 256 + 1), the largest integer of three balanced digits, so that rounding cannot pass it.
const LARGEST: f32 = 8_355_000.0;
/// Bound on the error of a value, as a part of the largest of its group: half a step each for the integer, the
/// reciprocal, the product and the scale.
pub(super) const STEP: f64 = 4.0 / 16_777_216.0;
/// Least value taken for the largest of a group, so that its reciprocal is finite.
const SMALLEST: f32 = 1e-30;

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
fn prepare_with<S: Simd>(simd: S, arrangement: Arrangement, x: &[f32], out: &mut [f32]) {
    match arrangement.plane {
        2 => groups::<S, 2>(simd, arrangement, x, out),
        4 => groups::<S, 4>(simd, arrangement, x, out),
        _ => groups::<S, 8>(simd, arrangement, x, out),
    }
}

/// All groups of a row; the width of the plane is a constant, so that no index needs a division.
#[inline(always)]
fn groups<S: Simd, const PLANE: usize>(simd: S, arrangement: Arrangement, x: &[f32], out: &mut [f32]) {
    let zero = simd.splat(0.0);
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
        let mut most = SMALLEST;
        for i in 0..LANES {
            most = most.max(lanes[i]);
        }
        let (header, words) = out.split_at_mut(HEADER);
        let words = words.as_chunks_mut::<{ 4 * DIGITS }>().0;
        let inverse = simd.splat(LARGEST / most);
        let mut sums = [simd.splat_i(0); DIGITS];
        for i in 0..x.len() {
            let whole = simd.to_int(simd.mul(simd.load(&x[i]), inverse));
            let low = simd.low_digit(whole);
            let rest = simd.next_digits(whole, low);
            let middle = simd.low_digit(rest);
            let digits = [simd.next_digits(rest, middle), middle, low];
            for digit in 0..DIGITS {
                sums[digit] = simd.add_i(sums[digit], digits[digit]);
                let packed = side_by_side::<PLANE>(simd.narrow(digits[digit]));
                for word in 0..4 {
                    words[i][word * DIGITS + digit] = f32::from_bits(packed[word]);
                }
            }
        }
        let [a, b, c] = [simd.sum_i(sums[0]), simd.sum_i(sums[1]), simd.sum_i(sums[2])];
        // A NaN or infinity has no digits: it makes the scale NaN, and so every product.
        header[0] = most / LARGEST + crate::simd::sum(simd, poison);
        header[1] = (65536 * a + 256 * b + c) as f32;
        for (slot, sum) in header[2..].iter_mut().zip([a, b, c]) {
            *slot = f32::from_bits(sum as u32);
        }
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
                let back = f64::from(first[0]) * (65536.0 * digit(0) + 256.0 * digit(1) + digit(2));
                assert!((back - f64::from(*x)).abs() <= f64::from(largest) * STEP, "{back} vs {x}");
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
            assert!(out[0].is_nan());
        }
    }
}
