//! How packed codes become f32: one [`Codec`] per kind of code, [`Scales`] for what follows them in a unit.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use amoeba_checkpoint::{Float, Format};

use super::cpu::Input;
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

    /// `y + scale · dot + bias · Σx`, the sum being that of one group of one row of x.
    #[inline(always)]
    pub(super) fn apply(
        &self,
        simd: S,
        dot: S::F,
        (x, row, group): (&Input<'_>, usize, usize),
        y: S::F,
    ) -> S::F {
        match self {
            Scales::None => simd.add(y, dot),
            Scales::Scale(scale) => simd.fma(*scale, dot, y),
            Scales::Affine(scale, bias) => {
                let y = simd.fma(*scale, dot, y);
                simd.fma(*bias, simd.splat(x.sum(row, group)), y)
            }
        }
    }
}

#[inline(always)]
fn floats<S: Simd>(simd: S, unit: &[u8], at: usize, float: Float) -> S::F {
    match float {
        Float::F32 => {
            let bytes: &[u8; 64] = array(unit, at);
            let mut values = [0.0; LANES];
            for i in 0..LANES {
                let at = 4 * i;
                values[i] = f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            }
            simd.load(&values)
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
    /// Quads of columns in a word of packed codes; a constant, so that loops over it unroll.
    const QUADS: usize;

    /// Sixteen values of each of four columns: quad `quad` of word `word` of a unit of `cols` columns.
    fn quad<S: Simd>(simd: S, unit: &[u8], cols: usize, word: usize, quad: usize) -> [S::F; 4];

    /// Sixteen values of one column behind the last quad; only dense units have such columns.
    #[inline(always)]
    fn rest<S: Simd>(simd: S, _unit: &[u8], _col: usize) -> S::F {
        simd.splat(0.0)
    }
}

/// Unsigned integers in planes of `LO` and `HI` bits.
pub(super) struct Int<const LO: u32, const HI: u32>;

impl<const LO: u32, const HI: u32> Codec for Int<LO, HI> {
    const QUADS: usize = 8 / LO as usize;

    #[inline(always)]
    fn quad<S: Simd>(simd: S, unit: &[u8], cols: usize, word: usize, quad: usize) -> [S::F; 4] {
        let lo = simd.words(array(unit, word * 64));
        let mut q = [simd.splat(0.0); 4];
        if HI == 0 {
            for j in 0..4 {
                q[j] = simd.field(lo, (4 * quad + j) as u32 * LO, (1 << LO) - 1);
            }
            return q;
        }
        // The high plane lies behind the low one; a high word serves several low ones.
        let first = word * Self::QUADS * 4 * HI as usize;
        let hi = simd.words(array(unit, cols * LO as usize * 2 + first / 32 * 64));
        for j in 0..4 {
            let i = (4 * quad + j) as u32;
            let high = (hi, (first % 32) as u32 + i * HI, (1 << HI) - 1);
            q[j] = simd.field2((lo, i * LO, (1 << LO) - 1), high, LO);
        }
        q
    }
}

/// 4-bit floats.
pub(super) struct E2m1;

impl Codec for E2m1 {
    const QUADS: usize = 2;

    #[inline(always)]
    fn quad<S: Simd>(simd: S, unit: &[u8], _cols: usize, word: usize, quad: usize) -> [S::F; 4] {
        let codes = simd.words(array(unit, word * 64));
        let mut q = [simd.splat(0.0); 4];
        for j in 0..4 {
            q[j] = simd.e2m1(codes, 4 * (4 * quad + j) as u32);
        }
        q
    }
}

/// 8-bit floats, divided by 2^8.
pub(super) struct E4m3;

impl Codec for E4m3 {
    const QUADS: usize = 1;

    #[inline(always)]
    fn quad<S: Simd>(simd: S, unit: &[u8], _cols: usize, word: usize, _quad: usize) -> [S::F; 4] {
        let codes = simd.words(array(unit, word * 64));
        let mut q = [simd.splat(0.0); 4];
        for j in 0..4 {
            q[j] = simd.e4m3(codes, 8 * j as u32);
        }
        q
    }
}

/// Unquantised floats: sixteen elements a column.
macro_rules! dense {
    ($name:ident, $float:expr) => {
        pub(super) struct $name;

        impl Codec for $name {
            const QUADS: usize = 1;

            #[inline(always)]
            fn quad<S: Simd>(simd: S, unit: &[u8], _cols: usize, word: usize, _quad: usize) -> [S::F; 4] {
                let mut q = [simd.splat(0.0); 4];
                for j in 0..4 {
                    q[j] = Self::rest(simd, unit, 4 * word + j);
                }
                q
            }

            #[inline(always)]
            fn rest<S: Simd>(simd: S, unit: &[u8], col: usize) -> S::F {
                floats(simd, unit, col * LANES * $float.bytes(), $float)
            }
        }
    };
}
dense!(DenseF32, Float::F32);
dense!(DenseF16, Float::F16);
dense!(DenseBf16, Float::BF16);
