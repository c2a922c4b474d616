//! Which kernel a product runs on: by format, by instruction set, and by number of rows where there is a tile
//! unit.

use std::ops::Range;

use amoeba_checkpoint::{Float, Format};

#[cfg(target_arch = "x86_64")]
use super::codec::Codes;
use super::codec::{DenseBf16, DenseF16, DenseF32, E2m1, E4m3, Int};
use super::cpu::{Args, Input, Sink, TILE, run};
#[cfg(target_arch = "x86_64")]
use super::digits::{Arrangement, Digits};
use super::int;
use super::pack::Weights;
#[cfg(target_arch = "x86_64")]
use super::tiles;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Amx, Simd, tiles::dispatch_tiles};
use crate::simd::{Isa, dispatch};

/// Whether [`matmul`] multiplies this many rows on the tile unit.
pub fn runs_on_tiles(isa: Isa, format: Format, rows: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        return isa == Isa::Amx
            && rows >= tiles::ROWS_MIN
            && Arrangement::of(format, Digits::default()).is_some();
    }
    #[allow(unreachable_code, reason = "other architectures have none")]
    {
        let _ = (isa, format, rows);
        false
    }
}

/// `y = W·x` over row blocks `blocks` and column slices `slices`; x is indexed from the matrix's first
/// column.
///
/// With `Isa::Amx` products of integer codes with sixteen rows or more run on the tile unit, others on
/// AVX-512.
pub fn matmul(
    isa: Isa,
    w: Weights<'_>,
    blocks: Range<usize>,
    slices: Range<usize>,
    x: &Input<'_>,
    sink: &mut Sink<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    if runs_on_tiles(isa, w.layout.format, x.rows)
        && let Some(amx) = Amx::detect()
    {
        return matmul_tiles(amx, w, blocks, slices, x, sink);
    }
    matmul_lanes(isa, w, blocks, slices, x, sink);
}

fn matmul_lanes(
    isa: Isa,
    w: Weights<'_>,
    blocks: Range<usize>,
    slices: Range<usize>,
    x: &Input<'_>,
    sink: &mut Sink<'_>,
) {
    let few = x.rows <= TILE;
    let digits = |products: [Product; 6]| products[2 * (x.digits().count() - 1) + usize::from(!few)];
    let product = match w.layout.format {
        Format::Dense(Float::F32) => dense_f32,
        Format::Dense(Float::F16) => dense_f16,
        Format::Dense(Float::BF16) => dense_bf16,
        Format::Affine { bits: 2, .. } => digits(int2::ALL),
        Format::Affine { bits: 3, .. } => digits(int3::ALL),
        Format::Affine { bits: 4, .. } => digits(int4::ALL),
        Format::Affine { bits: 5, .. } => digits(int5::ALL),
        Format::Affine { bits: 6, .. } => digits(int6::ALL),
        Format::Affine { .. } => digits(int8::ALL),
        Format::Mxfp4 | Format::Nvfp4 => digits(e2m1::ALL),
        Format::Mxfp8 => e4m3,
    };
    product(isa, Args { w, blocks, slices, x }, sink);
}

/// A product of one way of storing codes.
type Product = fn(Isa, Args<'_>, &mut Sink<'_>);

/// A function for every way of storing floats.
macro_rules! products {
    ($($name:ident = $kernel:path,)*) => {
        $(dispatch! { fn $name(args: Args<'_>, sink: &mut Sink<'_>) = $kernel })*
    };
}

products! {
    dense_f32 = run::<_, DenseF32>,
    dense_f16 = run::<_, DenseF16>,
    dense_bf16 = run::<_, DenseBf16>,
    e4m3 = run::<_, E4m3>,
}

/// A function for every way of storing codes, number of digits, and few rows or many: the time a function
/// takes to compile grows faster than its length.
macro_rules! int_products {
    ($($name:ident = $codes:ty,)*) => {
        $(mod $name {
            use super::*;

            products! {
                few1 = int::few::<_, $codes, 1>,
                many1 = int::many::<_, $codes, 1>,
                few2 = int::few::<_, $codes, 2>,
                many2 = int::many::<_, $codes, 2>,
                few3 = int::few::<_, $codes, 3>,
                many3 = int::many::<_, $codes, 3>,
            }
            pub(super) const ALL: [Product; 6] = [few1, many1, few2, many2, few3, many3];
        })*
    };
}

int_products! {
    int2 = Int<2, 0>,
    int3 = Int<2, 1>,
    int4 = Int<4, 0>,
    int5 = Int<4, 1>,
    int6 = Int<4, 2>,
    int8 = Int<8, 0>,
    e2m1 = E2m1,
}

#[cfg(target_arch = "x86_64")]
fn matmul_tiles(
    amx: Amx,
    w: Weights<'_>,
    blocks: Range<usize>,
    slices: Range<usize>,
    x: &Input<'_>,
    sink: &mut Sink<'_>,
) {
    let digits = |products: [TileProduct; 3]| products[x.digits().count() - 1];
    let product = match w.layout.format {
        Format::Affine { bits: 2, .. } => digits(tiles2::ALL),
        Format::Affine { bits: 3, .. } => digits(tiles3::ALL),
        Format::Affine { bits: 4, .. } => digits(tiles4::ALL),
        Format::Affine { bits: 5, .. } => digits(tiles5::ALL),
        Format::Affine { bits: 6, .. } => digits(tiles6::ALL),
        Format::Affine { .. } => digits(tiles8::ALL),
        Format::Mxfp4 | Format::Nvfp4 => digits(tiles_e2m1::ALL),
        Format::Dense(_) | Format::Mxfp8 => unreachable!("x is not prepared for products of floats"),
    };
    product(amx, Args { w, blocks, slices, x }, sink);
}

/// A product on the tile unit of one way of storing codes and one number of digits.
#[cfg(target_arch = "x86_64")]
type TileProduct = fn(Amx, Args<'_>, &mut Sink<'_>);

#[cfg(target_arch = "x86_64")]
macro_rules! tile_products {
    ($($name:ident = $codes:ty,)*) => {
        $(mod $name {
            use super::*;

            dispatch_tiles! { fn one(args: Args<'_>, sink: &mut Sink<'_>) = on_tiles::<_, $codes, 1> }
            dispatch_tiles! { fn two(args: Args<'_>, sink: &mut Sink<'_>) = on_tiles::<_, $codes, 2> }
            dispatch_tiles! { fn three(args: Args<'_>, sink: &mut Sink<'_>) = on_tiles::<_, $codes, 3> }
            pub(super) const ALL: [TileProduct; 3] = [one, two, three];
        })*
    };
}

#[cfg(target_arch = "x86_64")]
tile_products! {
    tiles2 = Int<2, 0>,
    tiles3 = Int<2, 1>,
    tiles4 = Int<4, 0>,
    tiles5 = Int<4, 1>,
    tiles6 = Int<4, 2>,
    tiles8 = Int<8, 0>,
    tiles_e2m1 = E2m1,
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn on_tiles<S: Simd, C: Codes, const D: usize>(simd: S, amx: Amx, args: Args<'_>, sink: &mut Sink<'_>) {
    let mut tiles = amx.set_up(tiles::tile_cols(args.w.layout.unit_cols()));
    tiles::run::<S, _, C, D>(simd, &mut tiles, &args, sink);
}
