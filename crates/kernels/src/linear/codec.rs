//! How packed codes become numbers: [`Codes`] for small integers, [`Codec`] for floats, [`UnitScales`] for
//! what follows integers in a unit.

#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over several arrays at once: the loops must unroll"
)]

use amoeba_checkpoint::{Float, Format};

use super::pack::Layout;
use crate::simd::{LANES, Simd};

/// Scales and biases of one unit of integers.
pub(super) struct UnitScales<S: Simd> {
    pub(super) scale: S::F,
    /// Zero unless [`Codes::BIASED`].
    pub(super) bias: S::F,
}

impl<S: Simd> UnitScales<S> {
    /// Those of a unit of `cols` columns. Only the formats that `C` stores are compiled.
    #[inline(always)]
    pub(super) fn read<C: Codes>(simd: S, layout: &Layout, unit: &[u8], cols: usize) -> UnitScales<S> {
        let codes = LANES * cols * C::BITS / 8;
        if C::BIASED {
            let Format::Affine { scale, .. } = layout.format else {
                unreachable!("only affine groups have biases")
            };
            let bias = codes + LANES * scale.bytes();
            return UnitScales {
                scale: floats(simd, unit, codes, scale),
                bias: floats(simd, unit, bias, scale),
            };
        }
        let bytes = simd.bytes(array(unit, codes));
        let scale = match layout.format {
            // The factor 2^8 that `e4m3` leaves out.
            Format::Nvfp4 => simd.mul(simd.e4m3(bytes, 0), simd.splat(256.0)),
            _ => simd.e8m0(bytes),
        };
        UnitScales { scale, bias: simd.splat(0.0) }
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

/// How a unit's elements become f32.
pub(super) trait Codec {
    /// Quads of columns in a word of packed codes; a constant, so that loops over it unroll.
    const QUADS: usize;

    /// Sixteen values of each of four columns: quad `quad` of word `word` of a unit of `cols` columns.
    fn quad<S: Simd>(simd: S, unit: &[u8], cols: usize, word: usize, quad: usize) -> [S::F; 4];

    /// The scale of a unit of `cols` columns, if it has one.
    #[inline(always)]
    fn scale<S: Simd>(_simd: S, _unit: &[u8], _cols: usize) -> Option<S::F> {
        None
    }

    /// Sixteen values of one column after the last quad; only dense units have such columns.
    #[inline(always)]
    fn rest<S: Simd>(simd: S, _unit: &[u8], _col: usize) -> S::F {
        simd.splat(0.0)
    }
}

/// How a unit's codes become unsigned bytes.
pub trait Codes {
    /// Bits of a code.
    const BITS: usize;
    /// Width of the low plane.
    const PLANE: usize;
    /// What the bytes exceed their value by.
    const OFFSET: i32 = 0;
    /// Value of one step of a byte.
    const UNIT: f32 = 1.0;
    /// Whether groups have biases.
    const BIASED: bool = true;

    /// Four columns of each of sixteen rows: step `step` of low word `word` of a unit of `cols` columns.
    fn bytes<S: Simd>(simd: S, unit: &[u8], cols: usize, word: usize, step: usize) -> S::U;
}

/// Unsigned integers in planes of `LO` and `HI` bits.
pub struct Int<const LO: usize, const HI: usize>;

impl<const LO: usize, const HI: usize> Codes for Int<LO, HI> {
    const BITS: usize = LO + HI;
    const PLANE: usize = LO;

    #[inline(always)]
    fn bytes<S: Simd>(simd: S, unit: &[u8], cols: usize, word: usize, step: usize) -> S::U {
        let low = simd.words(array(unit, word * 64));
        let low = simd.bytes_field(low, (LO * step) as u32, ((1u32 << LO) - 1) as u8);
        if HI == 0 {
            return low;
        }
        let (steps, served) = (8 / LO, LO / HI.max(1));
        let high = simd.words(array(unit, cols * LO * 2 + word / served * 64));
        let shift = HI * (word % served * steps + step);
        simd.bytes_join(low, simd.bytes_field(high, shift as u32, ((1u32 << HI) - 1) as u8), LO as u32)
    }
}

/// 4-bit floats, as twice their value plus 12.
pub struct E2m1;

impl Codes for E2m1 {
    const BITS: usize = 4;
    const PLANE: usize = 4;
    const OFFSET: i32 = 12;
    const UNIT: f32 = 0.5;
    const BIASED: bool = false;

    #[inline(always)]
    fn bytes<S: Simd>(simd: S, unit: &[u8], _cols: usize, word: usize, step: usize) -> S::U {
        let codes = simd.words(array(unit, word * 64));
        simd.bytes_e2m1(simd.bytes_field(codes, 4 * step as u32, 15))
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

    #[inline(always)]
    fn scale<S: Simd>(simd: S, unit: &[u8], cols: usize) -> Option<S::F> {
        // The factor 2^8 that `e4m3` leaves out.
        Some(simd.mul(simd.e8m0(simd.bytes(array(unit, LANES * cols))), simd.splat(256.0)))
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
