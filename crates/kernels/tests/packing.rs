//! Dequantisation is bit-exact against arrays that MLX wrote, and products of packed weights follow them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_checkpoint::{Checkpoint, Float, Format, Matrix};
use amoeba_kernels::linear::{Arrangement, Digits, Input, Layout, Packed, matmul, prepare};
use amoeba_kernels::quant::dequantise_row;
use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::allowed;

/// `[experts, rows, cols]` of every case.
const SHAPE: (usize, usize, usize) = (2, 6, 256);

fn format(key: &str) -> Option<Format> {
    let number = |from: &str, to: &str| key.split(from).nth(1)?.split(to).next()?.parse::<usize>().ok();
    match key {
        _ if key.starts_with("mxfp4") => Some(Format::Mxfp4),
        _ if key.starts_with("mxfp8") => Some(Format::Mxfp8),
        _ if key.starts_with("nvfp4") => Some(Format::Nvfp4),
        _ => {
            let (bits, group) = (number("affine_", "b")? as u8, number("_g", "x")? as u16);
            (bits > 1).then_some(Format::Affine { bits, group, scale: Float::BF16 })
        }
    }
}

#[test]
fn dequantised_values_are_bit_exact_and_products_follow() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/packing");
    let file = Checkpoint::open_file(&dir, "packing.safetensors").unwrap();
    let (experts, rows, cols) = SHAPE;
    let keys: Vec<&str> = file.names().filter_map(|name| name.strip_suffix(".dequantised")).collect();
    let mut checked = 0;
    for key in keys {
        let Some(format) = format(key) else { continue };
        let bytes = |part: &str| match file.has(&format!("{key}.{part}")) {
            true => file.tensor(&format!("{key}.{part}")).unwrap().bytes,
            false => &[],
        };
        let all = Matrix {
            rows: experts * rows,
            cols,
            format,
            weight: bytes("weight"),
            scales: bytes("scales"),
            biases: bytes("biases"),
        };
        assert_eq!(all.bytes(), format.matrix_bytes(all.rows, cols), "{key}");
        let expected = file.vector(&format!("{key}.dequantised"), experts * rows * cols).unwrap();
        let mut row = vec![0.0; cols];
        for (r, expected) in expected.chunks_exact(cols).enumerate() {
            dequantise_row(&all, r, &mut row);
            let same = row.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{key} row {r}:\n{row:?}\n{expected:?}");
        }
        products(&file, key, &all);
        checked += 1;
    }
    assert!(checked >= 21, "{checked} cases");
}

/// `y[expert] = x·Wᵀ` of the three recorded rows of x, by the packed kernel on every instruction set.
fn products(file: &Checkpoint, key: &str, all: &Matrix<'_>) {
    let (experts, rows, cols) = SHAPE;
    let x = file.vector("x", 3 * cols).unwrap();
    let expected = file.vector(&format!("{key}.y"), experts * 3 * rows).unwrap();
    let layout = Layout::whole(rows, cols, all.format);
    let matrices: Vec<Matrix<'_>> = (0..experts).map(|e| all.rows(e * rows, rows)).collect();
    let packed = Packed::new(layout, &matrices);
    let arrangement = Arrangement::of(all.format, Digits::Three);
    let len = arrangement.map_or(0, |arrangement| arrangement.len(cols));
    for isa in Isa::available() {
        let mut prepared = vec![0.0; 3 * len];
        if let Some(arrangement) = arrangement {
            for (x, out) in x.chunks_exact(cols).zip(prepared.chunks_exact_mut(len)) {
                prepare(isa, arrangement, x, out);
            }
        }
        let (index, prepared, prepared_stride) = (None, &prepared[..], len);
        let input = Input { x: &x, stride: cols, index, rows: 3, prepared, prepared_stride, arrangement };
        for expert in 0..experts {
            matmul(isa, packed.expert(expert), 0..1, 0..1, &input, &mut |row, _, values| {
                let expected = &expected[(expert * 3 + row) * rows..][..rows];
                for (i, (y, truth)) in values.iter().zip(expected).enumerate() {
                    let allowed =
                        allowed(&matrices[expert].rows(i, 1), Digits::Three, &x[row * cols..][..cols]);
                    let off = f64::from((y - truth).abs());
                    assert!(off <= allowed, "{key} on {isa}: {y} vs {truth}, allowed {allowed}");
                }
            });
        }
    }
}
