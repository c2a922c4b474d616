//! Times one packed product on one thread: GB/s of weights, by format, instruction set and number of rows.
//! `cargo run --release -p amoeba-kernels --example linear [MiB [FORMAT [DIGITS]]]`

use std::time::Instant;

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::linear::{Arrangement, Digits, Input, Layout, Packed, matmul, prepare};
use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::{OwnedMatrix, Rng};

const COLS: usize = 2048;

fn main() {
    let mib: usize = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(64);
    let only = std::env::args().nth(2);
    let mut formats: Vec<Format> =
        [2, 3, 4, 5, 6, 8].map(|bits| Format::Affine { bits, group: 64, scale: Float::BF16 }).to_vec();
    formats.extend([Format::Mxfp4, Format::Mxfp8, Format::Nvfp4, Format::Dense(Float::BF16)]);
    formats.retain(|format| only.as_ref().is_none_or(|only| format.to_string().starts_with(only)));
    let digits: usize = std::env::args().nth(3).and_then(|arg| arg.parse().ok()).unwrap_or(3);
    let digits = Digits::ALL.into_iter().find(|d| d.count() == digits).unwrap_or_default();
    println!(
        "{digits:?} digits\n\n| format | isa | rows | GB/s of weights | G weights·rows/s |\n|---|---|---|---|---|"
    );
    for format in formats {
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
            for rows in [1, 4, 8, 64] {
                run(format, digits, isa, rows, mib);
            }
        }
    }
}

fn run(format: Format, digits: Digits, isa: Isa, n: usize, mib: usize) {
    let mut rng = Rng(1);
    let layout = Layout::whole(64, COLS, format);
    let experts = (mib << 20) / layout.bytes();
    let owned = OwnedMatrix::random(format, 64, COLS, &mut rng);
    let packed = Packed::new(layout, &vec![owned.view(); experts]);
    let x = rng.vector(n * COLS);
    let arrangement = Arrangement::of(format, digits);
    let len = arrangement.map_or(0, |arrangement| arrangement.len(COLS));
    let mut prepared = vec![0.0; n * len];
    if let Some(arrangement) = arrangement {
        for (x, out) in x.chunks_exact(COLS).zip(prepared.chunks_exact_mut(len)) {
            prepare(isa, arrangement, x, out);
        }
    }
    let input = Input {
        x: &x,
        stride: COLS,
        index: None,
        rows: n,
        prepared: &prepared,
        prepared_stride: len,
        arrangement,
    };
    let mut total = 0.0;
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let started = Instant::now();
            for expert in 0..experts {
                matmul(isa, packed.expert(expert), 0..4, 0..1, &input, &mut |_, _, y| total += y[0]);
            }
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let weights = (experts * 64 * COLS * n) as f64;
    let (bytes, time) = (packed.bytes() as f64, times[0]);
    println!("| {format} | {isa} | {n} | {:.1} | {:.1} |", bytes / time / 1e9, weights / time / 1e9);
    std::hint::black_box(total);
}
