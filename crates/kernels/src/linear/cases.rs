//! Cases of `linear`: every format, odd shapes, slices, one to many rows; bits equal on every instruction
//! set.

use amoeba_checkpoint::Matrix;

use amoeba_kernels::linear::{Arrangement, Digits, Input, Layout, Packed, matmul, prepare, reference};
use amoeba_kernels::quant::dequantise_row;
use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::{OwnedMatrix, Rng, allowed, formats};

/// All outputs of `x` rows against `matrix`, through the packed kernel.
fn run(isa: Isa, matrix: &Matrix<'_>, slices: usize, x: &[f32], rows: usize) -> Vec<f32> {
    run_digits(Digits::Three, isa, matrix, slices, x, rows)
}

/// The same with x in `digits` digits.
fn run_digits(
    digits: Digits,
    isa: Isa,
    matrix: &Matrix<'_>,
    slices: usize,
    x: &[f32],
    rows: usize,
) -> Vec<f32> {
    let layout = Layout::sliced(matrix.rows, matrix.cols, matrix.format, slices);
    let packed = Packed::new(layout, &[*matrix]);
    let arrangement = Arrangement::of(matrix.format, digits);
    let len = arrangement.map_or(0, |arrangement| arrangement.len(matrix.cols));
    let mut prepared = vec![0.0; rows * len];
    if let Some(arrangement) = arrangement {
        for (x, out) in x.chunks_exact(matrix.cols).zip(prepared.chunks_exact_mut(len)) {
            prepare(isa, arrangement, x, out);
        }
    }
    let (stride, index, prepared, prepared_stride) = (matrix.cols, None, &prepared[..], len);
    let input = Input { x, stride, index, rows, prepared, prepared_stride, arrangement };
    let mut y = vec![0.0; rows * matrix.rows];
    matmul(isa, packed.expert(0), 0..layout.blocks(), 0..layout.slices(), &input, &mut |row, col, values| {
        for (i, &value) in values.iter().enumerate().take(matrix.rows.saturating_sub(col)) {
            y[row * matrix.rows + col + i] = value;
        }
    });
    y
}

#[test]
fn packed_products_follow_the_reference_for_every_format() {
    let mut rng = Rng(1);
    let mut worst = [0.0f64; 3];
    for (format, digits) in formats().into_iter().flat_map(|format| Digits::ALL.map(|d| (format, d))) {
        for (rows, cols) in [(1, 128), (16, 256), (37, 384), (50, 640)] {
            let owned = OwnedMatrix::random(format, rows, cols, &mut rng);
            let matrix = owned.view();
            let x = rng.vector(cols);
            let mut truth = vec![0.0; rows];
            reference::linear(&matrix, None, &x, &mut truth);
            for slices in [1, 3] {
                let y = run_digits(digits, Isa::best(), &matrix, slices, &x, 1);
                for (row, (y, truth)) in y.iter().zip(&truth).enumerate() {
                    let allowed = allowed(&matrix.rows(row, 1), digits, &x);
                    let used = f64::from((y - truth).abs()) / allowed;
                    assert!(
                        used <= 1.0,
                        "{format} {digits:?} {rows}×{cols} row {row}: {y} vs {truth}, {used:.2} of allowed"
                    );
                    let worst = &mut worst[digits.count() - 1];
                    *worst = worst.max(used);
                }
            }
        }
    }
    println!("linear: used {:.1?} % of allowed with 1, 2 and 3 digits", worst.map(|used| used * 100.0));
}

#[test]
fn bits_do_not_depend_on_instruction_set_or_row_count() {
    let mut rng = Rng(2);
    for (format, digits) in formats().into_iter().flat_map(|format| Digits::ALL.map(|d| (format, d))) {
        let (rows, cols) = (37, 384);
        let owned = OwnedMatrix::random(format, rows, cols, &mut rng);
        let matrix = owned.view();
        let x = rng.vector(70 * cols);
        let all = run_digits(digits, Isa::Scalar, &matrix, 2, &x, 70);
        for isa in Isa::available() {
            for n in [1, 2, 3, 4, 5, 8, 9, 67, 70] {
                let y = run_digits(digits, isa, &matrix, 2, &x[..n * cols], n);
                let same = y.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{format} {digits:?} on {isa}, {n} rows");
            }
        }
    }
}

#[test]
fn heads_of_a_row_prepared_as_one_have_the_bits_of_heads_alone() {
    let mut rng = Rng(6);
    for (format, digits) in formats().into_iter().flat_map(|format| Digits::ALL.map(|d| (format, d))) {
        let (heads, rows, cols) = (3, 21, if format.is_quantised() { 256 } else { 50 });
        let owned: Vec<_> = (0..heads).map(|_| OwnedMatrix::random(format, rows, cols, &mut rng)).collect();
        let matrices: Vec<_> = owned.iter().map(OwnedMatrix::view).collect();
        let packed = Packed::new(Layout::whole(rows, cols, format), &matrices);
        let x = rng.vector(67 * heads * cols);
        let of_head = |n: usize, head: usize| -> Vec<f32> {
            x[..n * heads * cols].chunks_exact(cols).skip(head).step_by(heads).flatten().copied().collect()
        };
        let alone: Vec<Vec<f32>> = (0..heads)
            .map(|h| run_digits(digits, Isa::Scalar, &matrices[h], 1, &of_head(67, h), 67))
            .collect();
        let mut truth = vec![0.0; heads * rows];
        reference::head_linear(&matrices, &x[..heads * cols], &mut truth);
        for h in 0..heads {
            for (row, truth) in truth[h * rows..][..rows].iter().enumerate() {
                let allowed = allowed(&matrices[h].rows(row, 1), digits, &of_head(1, h));
                let off = f64::from((alone[h][row] - truth).abs());
                assert!(off <= allowed, "{format} {digits:?} head {h} row {row}: off by {off:e}");
            }
        }
        for (isa, n) in Isa::available().into_iter().flat_map(|isa| [1, 2, 5, 8, 67].map(|n| (isa, n))) {
            let arrangement = Arrangement::of(format, digits);
            let len = arrangement.map_or(0, |arrangement| arrangement.len(heads * cols));
            let mut prepared = vec![0.0; n * len];
            if let Some(arrangement) = arrangement {
                let rows = x.chunks_exact(heads * cols).zip(prepared.chunks_exact_mut(len));
                rows.for_each(|(x, out)| prepare(isa, arrangement, x, out));
            }
            let (x, stride, prepared, prepared_stride) = (&x[..], heads * cols, &prepared[..], len);
            let input = Input { x, stride, index: None, rows: n, prepared, prepared_stride, arrangement };
            for (h, alone) in alone.iter().enumerate() {
                let (input, weights) = (input.from_column(h * cols), packed.expert(h));
                matmul(isa, weights, 0..weights.layout.blocks(), 0..1, &input, &mut |row, col, values| {
                    let width = 16.min(rows - col);
                    let same = values[..width].iter().zip(&alone[row * rows + col..]);
                    let same = same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{format} {digits:?} on {isa}, head {h}, {n} rows");
                });
            }
        }
    }
}

#[test]
fn dense_columns_need_not_fill_a_unit() {
    let mut rng = Rng(3);
    for format in formats().into_iter().filter(|format| !format.is_quantised()) {
        for cols in [1, 7, 65, 100] {
            let owned = OwnedMatrix::random(format, 19, cols, &mut rng);
            let x = rng.vector(10 * cols);
            let y = run(Isa::best(), &owned.view(), 1, &x, 10);
            let mut truth = vec![0.0; 19];
            for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(19)) {
                reference::linear(&owned.view(), None, x, &mut truth);
                for (y, truth) in y.iter().zip(&truth) {
                    assert!((y - truth).abs() <= 1e-5 * cols as f32, "{format} {cols}: {y} vs {truth}");
                }
            }
        }
    }
}

#[test]
fn a_one_hot_input_reads_one_dequantised_column() {
    let mut rng = Rng(4);
    for format in formats() {
        let owned = OwnedMatrix::random(format, 16, 256, &mut rng);
        let mut row = vec![0.0; 256];
        for col in [0, 1, 31, 63, 64, 127, 200, 255] {
            let mut x = vec![0.0; 256];
            x[col] = 1.0;
            let y = run(Isa::best(), &owned.view(), 1, &x, 1);
            for (r, y) in y.iter().enumerate() {
                dequantise_row(&owned.view(), r, &mut row);
                let allowed = 2.0 * f32::EPSILON * 32.0;
                assert!((y - row[col]).abs() <= allowed, "{format} [{r}, {col}]: {y} vs {}", row[col]);
            }
        }
    }
}

#[test]
fn unpacked_rows_are_the_stored_ones() {
    let mut rng = Rng(5);
    for format in formats() {
        let owned = OwnedMatrix::random(format, 21, 384, &mut rng);
        let packed = Packed::new(Layout::sliced(21, 384, format, 2), &[owned.view()]);
        let (mut truth, mut row) = (vec![0.0; 384], vec![0.0; 384]);
        for r in 0..21 {
            dequantise_row(&owned.view(), r, &mut truth);
            packed.unpack_row(r, &mut row);
            assert_eq!(row, truth, "{format} row {r}");
        }
    }
}
