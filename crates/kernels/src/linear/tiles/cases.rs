//! Cases of the products on tiles: bits equal to those of `int.rs` for every integer format, on an emulated
//! tile unit with every instruction set. Where the machine has the unit, `linear/cases.rs` runs it too.

use amoeba_checkpoint::Format;

use amoeba_kernels::dispatch;
use amoeba_kernels::linear::cpu::{Args, Sink};
use amoeba_kernels::linear::{Arrangement, Digits, Input, Layout, Packed, Weights, matmul, prepare};
use amoeba_kernels::simd::{Isa, LANES, Simd};
use amoeba_kernels::testing::tiles::{Codes, E2m1, Emulated, Int, run, tile_cols};
use amoeba_kernels::testing::{OwnedMatrix, Rng, formats};

/// A product on the emulated tile unit of one way of storing codes and one number of digits.
type Product = fn(Isa, &Args<'_>, &mut Sink<'_>);

macro_rules! emulated {
    ($($name:ident = $codes:ty,)*) => {
        $(mod $name {
            use super::*;

            dispatch! { fn one(args: &Args<'_>, sink: &mut Sink<'_>) = emulated_with::<_, $codes, 1> }
            dispatch! { fn two(args: &Args<'_>, sink: &mut Sink<'_>) = emulated_with::<_, $codes, 2> }
            dispatch! { fn three(args: &Args<'_>, sink: &mut Sink<'_>) = emulated_with::<_, $codes, 3> }
            pub(super) const ALL: [Product; 3] = [one, two, three];
        })*
    };
}

emulated! {
    int2 = Int<2, 0>,
    int3 = Int<2, 1>,
    int4 = Int<4, 0>,
    int5 = Int<4, 1>,
    int6 = Int<4, 2>,
    int8 = Int<8, 0>,
    e2m1 = E2m1,
}

#[inline(always)]
fn emulated_with<S: Simd, C: Codes, const D: usize>(simd: S, args: &Args<'_>, sink: &mut Sink<'_>) {
    if S::UNROLL || is_plain::<C>() {
        let mut tiles = Emulated::set_up(tile_cols(args.w.layout.unit_cols()));
        run::<S, _, C, D>(simd, &mut tiles, args, sink);
    }
}

/// Compiled for all lanes, and not only for those that a tile unit comes with.
const fn is_plain<C: Codes>() -> bool {
    matches!(C::BITS, 3 | 4) && C::BIASED
}

fn emulates(isa: Isa, format: Format) -> bool {
    isa.lanes().to_string() == "avx512" || matches!(format, Format::Affine { bits: 3 | 4, .. })
}

fn emulated(isa: Isa, args: &Args<'_>, sink: &mut Sink<'_>) {
    let products = match args.w.layout.format {
        Format::Affine { bits: 2, .. } => int2::ALL,
        Format::Affine { bits: 3, .. } => int3::ALL,
        Format::Affine { bits: 4, .. } => int4::ALL,
        Format::Affine { bits: 5, .. } => int5::ALL,
        Format::Affine { bits: 6, .. } => int6::ALL,
        Format::Affine { .. } => int8::ALL,
        _ => e2m1::ALL,
    };
    products[args.x.digits().count() - 1](isa, args, sink);
}

/// Packed weights and prepared rows of x.
struct Case {
    packed: Packed,
    arrangement: Arrangement,
    prepared: Vec<f32>,
    rng: Rng,
}

/// What of a case is multiplied.
#[derive(Clone, Copy, Debug)]
struct Share<'a> {
    rows: usize,
    index: Option<&'a [u32]>,
    blocks: (usize, usize),
    slices: (usize, usize),
}

impl Case {
    /// `n` rows of x: one zero, one with a NaN, one of largest digits, the rest random.
    fn new(format: Format, digits: Digits, (rows, cols): (usize, usize), slices: usize, n: usize) -> Case {
        let mut rng = Rng(31);
        let owned = OwnedMatrix::random(format, rows, cols, &mut rng);
        let packed = Packed::new(Layout::sliced(rows, cols, format, slices), &[owned.view()]);
        let arrangement = Arrangement::of(format, digits).unwrap();
        let len = arrangement.len(cols);
        let mut prepared = vec![0.0; n * len];
        for (row, out) in prepared.chunks_exact_mut(len).enumerate() {
            let mut x = rng.vector(cols);
            match row {
                3 => x.fill(0.0),
                5 => x[cols / 2] = f32::NAN,
                7 => x.iter_mut().for_each(|x| *x = x.signum() * 1e9),
                _ => {}
            }
            prepare(Isa::Scalar, arrangement, &x, out);
        }
        Case { packed, arrangement, prepared, rng }
    }

    /// Every output in the order of the rows; each must come exactly once.
    fn run(&self, share: Share<'_>, product: impl Fn(Weights<'_>, &Input<'_>, &mut Sink<'_>)) -> Vec<f32> {
        let layout = self.packed.layout();
        let x = Input {
            x: &[],
            stride: 0,
            index: share.index,
            rows: share.rows,
            prepared: &self.prepared,
            prepared_stride: self.arrangement.len(layout.cols),
            arrangement: Some(self.arrangement),
        };
        let width = (share.blocks.1 - share.blocks.0) * LANES;
        let mut out = vec![None; share.rows * width];
        product(self.packed.expert(0), &x, &mut |row, col, values| {
            for (i, &value) in values.iter().enumerate() {
                let old = out[row * width + col - share.blocks.0 * LANES + i].replace(value);
                assert_eq!(old, None, "row {row} of x, output {}: twice", col + i);
            }
        });
        out.into_iter().map(|value| value.expect("every output")).collect()
    }

    fn check(&self, share: Share<'_>) {
        let (blocks, slices) = (share.blocks.0..share.blocks.1, share.slices.0..share.slices.1);
        let known =
            self.run(share, |w, x, sink| matmul(Isa::Scalar, w, blocks.clone(), slices.clone(), x, sink));
        let format = self.packed.layout().format;
        for isa in Isa::available().into_iter().filter(|isa| emulates(*isa, format)) {
            let found = self.run(share, |w, x, sink| {
                let args = Args { w, blocks: blocks.clone(), slices: slices.clone(), x };
                emulated(isa, &args, sink);
            });
            for (i, (a, b)) in found.iter().zip(&known).enumerate() {
                assert!(
                    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                    "{format} on {isa}, {share:?}, output {i}: {a} and {b}"
                );
            }
        }
    }
}

fn integer_formats() -> impl Iterator<Item = Format> {
    formats().into_iter().filter(|format| Arrangement::of(*format, Digits::Three).is_some())
}

#[test]
fn bits_are_those_of_the_products_without_tiles() {
    for (format, digits) in integer_formats().flat_map(|format| Digits::ALL.map(|d| (format, d))) {
        for slices in [1, 3] {
            let case = Case::new(format, digits, (37, 384), slices, 70);
            let slices = case.packed.layout().slices();
            for rows in [16, 17, 31, 32, 33, 48, 64, 65, 70] {
                case.check(Share { rows, index: None, blocks: (0, 3), slices: (0, slices) });
            }
        }
    }
}

#[test]
fn shares_of_blocks_slices_and_rows_are_enough() {
    for (i, format) in integer_formats().enumerate() {
        let mut case = Case::new(format, Digits::ALL[i % 3], (100, 640), 4, 90);
        let index: Vec<u32> = (0..37).map(|_| case.rng.below(90) as u32).collect();
        let (rows, index) = (index.len(), Some(&index[..]));
        for (blocks, slices) in [((2, 6), (1, 3)), ((0, 1), (0, 1)), ((6, 7), (2, 3)), ((3, 5), (1, 1))] {
            case.check(Share { rows, index, blocks, slices });
        }
    }
}

#[test]
fn many_blocks_come_in_batches() {
    for format in [Format::Mxfp4, integer_formats().next().unwrap()] {
        let case = Case::new(format, Digits::Three, (37 * LANES - 5, 128), 1, 70);
        for rows in [16, 40, 70] {
            case.check(Share { rows, index: None, blocks: (0, 37), slices: (0, 1) });
        }
    }
}
