//! Which kernel a product runs on: by format, by instruction set, and by number of rows where there is a tile
//! unit.

use std::ops::Range;

use amoeba_checkpoint::{Float, Format};

#[cfg(target_arch = "x86_64")]
use super::codec::Codes;
use super::codec::{DenseBf16, DenseF16, DenseF32, E2m1, E4m3, Int};
use super::cpu::{Args, Input, Sink, run};
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
    let product = match w.layout.format {
        Format::Dense(Float::F32) => dense_f32,
        Format::Dense(Float::F16) => dense_f16,
        Format::Dense(Float::BF16) => dense_bf16,
        Format::Affine { bits: 2, .. } => int2,
        Format::Affine { bits: 3, .. } => int3,
        Format::Affine { bits: 4, .. } => int4,
        Format::Affine { bits: 5, .. } => int5,
        Format::Affine { bits: 6, .. } => int6,
        Format::Affine { .. } => int8,
        Format::Mxfp4 | Format::Nvfp4 => e2m1,
        Format::Mxfp8 => e4m3,
    };
    product(isa, Args { w, blocks, slices, x }, sink);
}

/// A function for every way of storing codes: a single one of all of them takes minutes to compile.
macro_rules! products {
    ($($name:ident = $kernel:path,)*) => {
        $(dispatch! { fn $name(args: Args<'_>, sink: &mut Sink<'_>) = $kernel })*
    };
}

products! {
    dense_f32 = run::<_, DenseF32>,
    dense_f16 = run::<_, DenseF16>,
    dense_bf16 = run::<_, DenseBf16>,
    int2 = int::run::<_, Int<2, 0>>,
    int3 = int::run::<_, Int<2, 1>>,
    int4 = int::run::<_, Int<4, 0>>,
    int5 = int::run::<_, Int<4, 1>>,
    int6 = int::run::<_, Int<4, 2>>,
    int8 = int::run::<_, Int<8, 0>>,
    e2m1 = int::run::<_, E2m1>,
    e4m3 = run::<_, E4m3>,
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
    let product = match w.layout.format {
        Format::Affine { bits: 2, .. } => tiles2,
        Format::Affine { bits: 3, .. } => tiles3,
        Format::Affine { bits: 4, .. } => tiles4,
        Format::Affine { bits: 5, .. } => tiles5,
        Format::Affine { bits: 6, .. } => tiles6,
        Format::Affine { .. } => tiles8,
        Format::Mxfp4 | Format::Nvfp4 => tiles_e2m1,
        Format::Dense(_) | Format::Mxfp8 => unreachable!("x is not prepared for products of floats"),
    };
    product(amx, Args { w, blocks, slices, x }, sink);
}

#[cfg(target_arch = "x86_64")]
macro_rules! tile_products {
    ($($name:ident = $codes:ty,)*) => {
        $(dispatch_tiles! { fn $name(args: Args<'_>, sink: &mut Sink<'_>) = on_tiles::<_, $codes> })*
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
fn on_tiles<S: Simd, C: Codes>(simd: S, amx: Amx, args: Args<'_>, sink: &mut Sink<'_>) {
    let mut tiles = amx.set_up(tiles::tile_cols(args.w.layout.unit_cols()));
    tiles::run::<S, _, C>(simd, &mut tiles, &args, sink);
}
