//! How packed codes become f32: one [`Codec`] per kind of code, [`Scales`] for what follows them in a unit.

use amoeba_checkpoint::{Float, Format};

use super::pack::Layout;
use crate::simd::{LANES, Simd};

/// Scales (and biases) of one unit.
pub(super) enum Scales<S: Simd> {
    /// Dense weights.
    None,
    /// Microscaling formats.
    Scale(S::F),
    /// Affine formats.
    Affine(S::F, S::F),
}

impl<S: Simd> Scales<S> {
    #[inline(always)]
    pub(super) fn read(simd: S, layout: &Layout, unit: &[u8]) -> Scales<S> {
        let codes = LANES * layout.format.row_bytes(layout.unit_cols());
        match layout.format {
            Format::Dense(_) => Scales::None,
            Format::Mxfp4 => Scales::Scale(simd.e8m0(simd.bytes(array(unit, codes)))),
            // The factor 2^8 that `e4m3` leaves out.
            Format::Mxfp8 => {
                Scales::Scale(simd.mul(simd.e8m0(simd.bytes(array(unit, codes))), simd.splat(256.0)))
            }
            Format::Nvfp4 => {
                Scales::Scale(simd.mul(simd.e4m3(simd.bytes(array(unit, codes)), 0), simd.splat(256.0)))
            }
            Format::Affine { scale, .. } => {
                let next = codes + LANES * scale.bytes();
                Scales::Affine(floats(simd, unit, codes, scale), floats(simd, unit, next, scale))
            }
        }
    }

    /// `y + scale · dot + bias · Σx`.
    #[inline(always)]
    pub(super) fn apply(&self, simd: S, dot: S::F, sums: impl Fn() -> f32, y: S::F) -> S::F {
        match self {
            Scales::None => simd.add(y, dot),
            Scales::Scale(scale) => simd.fma(*scale, dot, y),
            Scales::Affine(scale, bias) => {
                let y = simd.fma(*scale, dot, y);
                simd.fma(*bias, simd.splat(sums()), y)
            }
        }
    }
}

#[inline(always)]
fn floats<S: Simd>(simd: S, unit: &[u8], at: usize, float: Float) -> S::F {
    match float {
        Float::F32 => {
            let bytes: &[u8; 64] = array(unit, at);
            simd.load(&std::array::from_fn(|i| {
                f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
            }))
        }
        Float::F16 => simd.f16(array(unit, at)),
        Float::BF16 => simd.bf16(array(unit, at)),
    }
}

#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().expect("a whole unit")
}

/// How a unit's codes become f32.
pub(super) trait Codec {
    /// Calls `f(column, sixteen values)` for the columns of a unit in order.
    fn each<S: Simd>(simd: S, unit: &[u8], cols: usize, f: impl FnMut(usize, S::F));
}

/// Unsigned integers in planes of `LO` and `HI` bits.
pub(super) struct Int<const LO: u32, const HI: u32>;

impl<const LO: u32, const HI: u32> Codec for Int<LO, HI> {
    #[inline(always)]
    fn each<S: Simd>(simd: S, unit: &[u8], cols: usize, mut f: impl FnMut(usize, S::F)) {
        let per_word = (32 / LO) as usize;
        let high_plane = cols / per_word * 64;
        for word in 0..cols / per_word {
            let lo = simd.words(array(unit, word * 64));
            let first = word * per_word;
            let hi =
                if HI > 0 { simd.words(array(unit, high_plane + first * HI as usize / 32 * 64)) } else { lo };
            let hi_shift = (first * HI as usize % 32) as u32;
            for i in 0..32 / LO {
                let value = if HI > 0 {
                    let high = (hi, hi_shift + i * HI, (1 << HI) - 1);
                    simd.field2((lo, i * LO, (1 << LO) - 1), high, LO)
                } else {
                    simd.field(lo, i * LO, (1 << LO) - 1)
                };
                f(first + i as usize, value);
            }
        }
    }
}

/// 4-bit floats.
pub(super) struct E2m1;

impl Codec for E2m1 {
    #[inline(always)]
    fn each<S: Simd>(simd: S, unit: &[u8], cols: usize, mut f: impl FnMut(usize, S::F)) {
        for word in 0..cols / 8 {
            let codes = simd.words(array(unit, word * 64));
            for i in 0..8 {
                f(word * 8 + i, simd.e2m1(codes, 4 * i as u32));
            }
        }
    }
}

/// 8-bit floats, divided by 2^8.
pub(super) struct E4m3;

impl Codec for E4m3 {
    #[inline(always)]
    fn each<S: Simd>(simd: S, unit: &[u8], cols: usize, mut f: impl FnMut(usize, S::F)) {
        for word in 0..cols / 4 {
            let codes = simd.words(array(unit, word * 64));
            for i in 0..4 {
                f(word * 4 + i, simd.e4m3(codes, 8 * i as u32));
            }
        }
    }
}

/// Unquantised floats: sixteen elements a column.
macro_rules! dense {
    ($name:ident, $float:expr) => {
        pub(super) struct $name;

        impl Codec for $name {
            #[inline(always)]
            fn each<S: Simd>(simd: S, unit: &[u8], cols: usize, mut f: impl FnMut(usize, S::F)) {
                for col in 0..cols {
                    f(col, floats(simd, unit, col * LANES * $float.bytes(), $float));
                }
            }
        }
    };
}
dense!(DenseF32, Float::F32);
dense!(DenseF16, Float::F16);
dense!(DenseBf16, Float::BF16);
