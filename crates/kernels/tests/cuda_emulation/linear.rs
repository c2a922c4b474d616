//! `linear` and `embed` in every format.

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::linear::{Digits, reference};
use amoeba_kernels::testing::{OwnedMatrix, Rng, allowed};
use amoeba_kernels::{embed, gpu::StepRow, testing};
use amoeba_plan::{EmbedOp, HeadLinearOp, Op};

use crate::bench::Bench;
use crate::device;

/// Every format in one of these groups, each a test of its own: they are built side by side.
macro_rules! in_every_format {
    ($($name:ident: $group:expr;)*) => {
        const GROUPS: &[u8] = &[$($group),*];
        mod one_row { $(#[test] fn $name() { super::one_row($group) })* }
        mod many_rows { $(#[test] fn $name() { super::many_rows($group) })* }
        mod embeddings { $(#[test] fn $name() { super::embeddings($group) })* }
    };
}

in_every_format! {
    dense: 0;
    micro: 1;
    bits_2: 2;
    bits_3: 3;
    bits_4: 4;
    bits_5: 5;
    bits_6: 6;
    bits_8: 8;
}

/// The group of a format: bits of affine ones, 0 of dense ones, 1 of those with an exponent to each code.
fn group(format: Format) -> u8 {
    match format {
        Format::Dense(_) => 0,
        Format::Affine { bits, .. } => bits,
        _ => 1,
    }
}

/// All formats of a group, or those of them that stand for the others.
fn formats(of: u8) -> impl Iterator<Item = Format> {
    let affine = |bits, group, scale| Format::Affine { bits, group, scale };
    let few = [
        Format::Dense(Float::BF16),
        Format::Nvfp4,
        affine(3, 32, Float::F32),
        affine(4, 64, Float::BF16),
        affine(8, 128, Float::F16),
    ];
    let mut all = testing::formats();
    all.retain(|format| group(*format) == of && (!device::few() || few.contains(format)));
    all.into_iter()
}

#[test]
fn groups_hold_every_format() {
    assert!(testing::formats().iter().all(|format| GROUPS.contains(&group(*format))));
}

/// Largest share of the tolerance used.
fn check(
    format: Format,
    outputs: usize,
    cols: usize,
    rows: usize,
    biased: bool,
    rng: &mut Rng,
) -> Option<f64> {
    let mut bench = Bench::new()?;
    let owned = OwnedMatrix::random(format, outputs, cols, rng);
    let (matrix, bias) = (owned.view(), rng.vector(outputs));
    let x = rng.vector(rows * cols);
    bench.plain_rows(rows);
    let weight = bench.matrix(&matrix);
    let bias_id = biased.then(|| bench.vector(&bias));
    let (x_id, out) = (bench.buffer(cols, rows, &x), bench.buffer(outputs, rows, &[]));
    bench.run(bench.linear(weight, bias_id, x_id, out), rows.next_power_of_two());
    let mut worst = 0.0f64;
    for (row, x) in x.chunks(cols).enumerate() {
        let y = bench.row(out, row);
        for (i, y) in y.iter().enumerate() {
            let one = matrix.rows(i, 1);
            let truth = reference::dot(&one, x) + if biased { f64::from(bias[i]) } else { 0.0 };
            let used = (f64::from(*y) - truth).abs() / allowed(&one, Digits::Three, x);
            assert!(
                used <= 1.0,
                "{format} [{outputs}, {cols}] x {rows}, output {i} of row {row}: {y} vs {truth}"
            );
            worst = worst.max(used);
        }
    }
    Some(worst)
}

fn one_row(group: u8) {
    let mut rng = Rng(1);
    for format in formats(group) {
        for (outputs, cols) in [(16, 128), (37, 384), (50, 640)] {
            if let Some(worst) = check(format, outputs, cols, 1, outputs == 50, &mut rng) {
                println!("{format} [{outputs}, {cols}]: {:.1} % of allowed", 100.0 * worst);
            }
        }
    }
}

#[test]
fn rows_share_a_launch() {
    let mut rng = Rng(2);
    let affine = |bits, group| Format::Affine { bits, group, scale: Float::BF16 };
    let formats = [
        affine(4, 64),
        affine(8, 32),
        affine(4, 128),
        Format::Mxfp4,
        Format::Nvfp4,
        Format::Dense(Float::BF16),
    ];
    for format in formats {
        for rows in [2, 3, 8] {
            check(format, 40, 256, rows, false, &mut rng);
        }
    }
}

fn many_rows(group: u8) {
    let mut rng = Rng(5);
    for format in formats(group) {
        if let Some(worst) = check(format, 37, 256, 11, true, &mut rng) {
            println!("{format}: {:.1} % of allowed", 100.0 * worst);
        }
    }
}

#[test]
fn many_rows_in_other_tiles() {
    let mut rng = Rng(5);
    // Tiles of 64 rows, some alone, some with K shared by warps; widths that are no whole slab.
    let affine = |bits, group| Format::Affine { bits, group, scale: Float::BF16 };
    check(affine(4, 64), 400, 192, 70, false, &mut rng);
    check(affine(4, 64), 200, 320, 20, false, &mut rng);
    check(affine(8, 64), 40, 320, 40, false, &mut rng);
    check(affine(3, 32), 37, 96, 9, false, &mut rng);
    check(Format::Dense(Float::BF16), 20, 36, 9, true, &mut rng);
    check(Format::Dense(Float::F32), 20, 84, 17, true, &mut rng);
}

/// A width that does not fill a block, in every format.
fn narrow(cols: usize) {
    let mut rng = Rng(3);
    let affine = |bits| Format::Affine { bits, group: 32, scale: Float::F16 };
    let mut formats: Vec<Format> = [2, 3, 4, 5, 6, 8].map(affine).into();
    formats.extend([Format::Mxfp4, Format::Mxfp8]);
    if device::few() {
        formats.retain(|format| [affine(3), affine(4), Format::Mxfp4].contains(format));
    }
    for format in formats {
        check(format, 20, cols, 1, false, &mut rng);
    }
}

#[test]
fn one_group_in_a_row() {
    narrow(32);
}

#[test]
fn five_groups_in_a_row() {
    narrow(160);
}

#[test]
fn other_widths_that_do_not_fill_a_block() {
    let mut rng = Rng(3);
    check(Format::Affine { bits: 4, group: 32, scale: Float::F16 }, 33, 2944, 1, true, &mut rng);
    check(Format::Nvfp4, 20, 144, 1, false, &mut rng);
    for float in [Float::F32, Float::F16, Float::BF16] {
        check(Format::Dense(float), 1, 36, 1, true, &mut rng);
        check(Format::Dense(float), 5, 80, 2, true, &mut rng);
    }
}

/// Exact up to one rounding.
fn embeddings(group: u8) {
    let mut rng = Rng(4);
    for format in formats(group) {
        let Some(mut bench) = Bench::new() else { return };
        let owned = OwnedMatrix::random(format, 9, 384, &mut rng);
        let tokens = [8, 0, 3];
        bench.rows(&tokens.map(|token| StepRow { token, ..StepRow::default() }));
        let table = bench.matrix(&owned.view());
        let out = bench.buffer(384, 4, &[]);
        bench.run(Op::Embed(EmbedOp { table, vocab: 9, width: 384, scale: 1.5, out }), 4);
        for (row, token) in tokens.into_iter().enumerate() {
            let mut truth = vec![0.0; 384];
            embed::embed(&owned.view(), token, 1.5, &mut truth);
            for (y, truth) in bench.row(out, row).iter().zip(truth) {
                assert!((y - truth).abs() <= 3e-7 * truth.abs(), "{format}: {y} vs {truth}");
            }
        }
        assert!(bench.row(out, 3).iter().all(|x| x.is_nan()), "rows past the last are left alone");
    }
}

#[test]
fn heads_have_matrices_of_their_own() {
    let (mut rng, heads) = (Rng(17), 3);
    for (format, outputs, cols, rows) in [
        (Format::Affine { bits: 4, group: 32, scale: Float::BF16 }, 24, 96, 2),
        (Format::Dense(Float::BF16), 40, 48, 2),
        (Format::Affine { bits: 4, group: 32, scale: Float::BF16 }, 24, 96, 10),
    ] {
        let Some(mut bench) = Bench::new() else { return };
        let owned: Vec<OwnedMatrix> =
            (0..heads).map(|_| OwnedMatrix::random(format, outputs, cols, &mut rng)).collect();
        let views: Vec<_> = owned.iter().map(OwnedMatrix::view).collect();
        let x = rng.vector(rows * heads * cols);
        bench.plain_rows(rows);
        let weight = bench.stack(&views);
        let (x_id, out) = (bench.buffer(heads * cols, rows, &x), bench.buffer(heads * outputs, rows, &[]));
        bench.run(Op::HeadLinear(HeadLinearOp { weight, heads, rows: outputs, cols, x: x_id, out }), rows);
        for (row, x) in x.chunks(heads * cols).enumerate() {
            for (i, y) in bench.row(out, row).iter().enumerate() {
                let one = views[i / outputs].rows(i % outputs, 1);
                let x = &x[i / outputs * cols..][..cols];
                let error = (f64::from(*y) - reference::dot(&one, x)).abs();
                assert!(error <= allowed(&one, Digits::Three, x), "{format} head {}: {y}", i / outputs);
            }
        }
    }
}
