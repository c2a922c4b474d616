//! Times one packed product on one thread: GB/s of weights, by format, digits, number of rows and instruction
//! set (the two widest, so with and without tiles where there are any). `cargo run --release -p
//! amoeba-kernels --example linear [MiB [FORMAT [DIGITS [ROWS]]]]`, the last two lists: `1,3`

use std::time::{Duration, Instant};

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::linear::{Arrangement, Digits, Input, Layout, Packed, matmul, prepare};
use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::{OwnedMatrix, Rng};

const COLS: usize = 2048;
/// Outputs of a matrix: those of one item of an expert of Qwen3-30B-A3B.
const OUTPUTS: usize = 192;
/// How long one line is measured, at least three times.
const TIME: Duration = Duration::from_millis(200);

fn main() {
    let arg = |i| std::env::args().nth(i);
    let list = |i, default: &[usize]| {
        arg(i).map_or(default.to_vec(), |arg| arg.split(',').filter_map(|n| n.parse().ok()).collect())
    };
    let mib: usize = arg(1).and_then(|arg| arg.parse().ok()).unwrap_or(64);
    let mut formats: Vec<Format> =
        [2, 3, 4, 5, 6, 8].map(|bits| Format::Affine { bits, group: 64, scale: Float::BF16 }).to_vec();
    formats.extend([Format::Mxfp4, Format::Mxfp8, Format::Nvfp4, Format::Dense(Float::BF16)]);
    formats.retain(|format| arg(2).is_none_or(|only| format.to_string().starts_with(&only)));
    let digits: Vec<Digits> =
        list(3, &[3]).into_iter().filter_map(|n| Digits::ALL.into_iter().find(|d| d.count() == n)).collect();
    println!(
        "| format | digits | rows | isa | GB/s of weights | G weights·rows/s |\n|---|---|---|---|---|---|"
    );
    for format in formats {
        for &digits in &digits {
            for &rows in &list(4, &[1, 4, 8, 64]) {
                for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar).take(2) {
                    run(format, digits, isa, rows, mib);
                }
            }
        }
    }
}

fn run(format: Format, digits: Digits, isa: Isa, n: usize, mib: usize) {
    let mut rng = Rng(1);
    let layout = Layout::whole(OUTPUTS, COLS, format);
    let experts = (mib << 20) / layout.bytes();
    let owned = OwnedMatrix::random(format, OUTPUTS, COLS, &mut rng);
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
    let mut times = Vec::new();
    while times.len() < 3 || times.iter().sum::<f64>() < TIME.as_secs_f64() {
        let started = Instant::now();
        for expert in 0..experts {
            let blocks = 0..layout.blocks();
            matmul(isa, packed.expert(expert), blocks, 0..1, &input, &mut |_, _, y| total += y[0]);
        }
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let weights = (experts * OUTPUTS * COLS * n) as f64;
    let (bytes, time, digits) = (packed.bytes() as f64, times[0], digits.count());
    println!(
        "| {format} | {digits} | {n} | {isa} | {:.1} | {:.1} |",
        bytes / time / 1e9,
        weights / time / 1e9
    );
    std::hint::black_box(total);
}
