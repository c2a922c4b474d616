//! Bodies of several ops and shapes in one unit and one launch: the bits of a launch each.

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::gpu::{Args, Call, Unit};
use amoeba_kernels::testing::{OwnedMatrix, Rng, rms_norm};
use amoeba_plan::Op;

use crate::bench::Bench;
use crate::memory::Memory;
use crate::module;

const WIDTH: usize = 1024;
const INNER: usize = 512;
const OUTPUTS: usize = 80;

/// The unit with the bodies of all calls: their headers once, the macros of the products under a letter each.
fn unit(calls: &[Call]) -> Unit {
    let mut headers = Vec::new();
    for header in calls.iter().flat_map(|call| call.unit.headers) {
        if !headers.contains(header) {
            headers.push(*header);
        }
    }
    let mut defines = Vec::new();
    for (call, letter) in calls[1..].iter().zip(["A", "B"]) {
        let renamed =
            |(name, value): &(&str, String)| (&*name.replacen('K', letter, 1).leak(), value.clone());
        defines.extend(call.unit.defines.iter().map(renamed));
    }
    Unit { headers: headers.leak(), op: ("persistent.cu", include_str!("persistent.cu")), defines }
}

#[test]
fn bodies_of_several_shapes_share_a_launch() {
    let (mut rng, Some(mut bench)) = (Rng(41), Bench::new()) else { return };
    let formats = [Format::Affine { bits: 4, group: 64, scale: Float::BF16 }, Format::Dense(Float::BF16)];
    let first = OwnedMatrix::random(formats[0], INNER, WIDTH, &mut rng);
    let second = OwnedMatrix::random(formats[1], OUTPUTS, INNER, &mut rng);
    bench.plain_rows(1);
    let weights = [bench.matrix(&first.view()), bench.matrix(&second.view())];
    let norm_weight = bench.vector(&rng.vector(WIDTH));
    let x = bench.buffer(WIDTH, 2, &rng.vector(WIDTH));
    let [normed, inner, out] = [WIDTH, INNER, OUTPUTS].map(|width| bench.buffer(width, 2, &[]));
    let norm = rms_norm(x, normed, Some(norm_weight), [1, WIDTH]);
    let ops = vec![
        Op::Norm(norm),
        bench.linear(weights[0], None, normed, inner),
        bench.linear(weights[1], None, inner, out),
    ];
    bench.run_all(ops, 1);
    let apart = [normed, inner, out].map(|buffer| bench.row(buffer, 0));
    let calls = bench.calls(1);
    assert!(calls.iter().all(|call| call.block == calls[0].block), "{calls:?}");

    let mut arrived = Memory::new(4);
    let args =
        calls.iter().flat_map(|call| call.args.words()).fold(Args::new(), |args, word| args.address(*word));
    let args = args.address(arrived.address());
    let args = calls.iter().fold(args, |args, call| args.size(call.grid[0] as usize)).size(0);
    let shared = calls.iter().map(|call| call.shared).max().unwrap();
    let call =
        Call { unit: unit(&calls), kernel: "persistent", grid: [1, 1, 1], shared, args, ..calls[0].clone() };
    for (blocks, seed) in [(1, 0), (2, 0), (3, 977)] {
        for buffer in [normed, inner, out] {
            bench.write(buffer, &[]);
        }
        arrived.bytes_mut().fill(0);
        module::launch(&Call { grid: [blocks, 1, 1], ..call.clone() }, seed);
        let together = [normed, inner, out].map(|buffer| bench.row(buffer, 0));
        assert_eq!(apart, together, "{blocks} blocks");
    }
}
