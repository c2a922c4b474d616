//! `experts`: formats, activations, biases, several rows.

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::experts::reference::{Experts, Stored};
use amoeba_kernels::testing::{OwnedMatrix, Rng, rms, views};
use amoeba_plan::{Activation, ExpertWeights, ExpertsOp, Op};

use crate::bench::Bench;

const EXPERTS: usize = 5;

fn check(
    [gate, up, down]: [Format; 3],
    activation: Activation,
    biased: bool,
    [hidden, d_ff, top_k, rows]: [usize; 4],
) {
    let (mut rng, Some(mut bench)) = (Rng(13), Bench::new()) else { return };
    let stacks = [(gate, d_ff, hidden), (up, d_ff, hidden), (down, hidden, d_ff)]
        .map(|(format, rows, cols)| OwnedMatrix::stack(format, EXPERTS, rows, cols, &mut rng));
    let views = stacks.each_ref().map(|stack| views(stack));
    let biases = [d_ff, d_ff, hidden].map(|outputs| rng.vector(EXPERTS * outputs));
    let x: Vec<f32> = rng.vector(rows * hidden).iter().map(|x| x / (hidden as f32).sqrt()).collect();
    let routes: Vec<f32> = (0..rows)
        .flat_map(|row| {
            let indices = (0..top_k).map(|k| ((k + row) % EXPERTS) as f32).collect::<Vec<_>>();
            indices.into_iter().chain(rng.vector(top_k)).collect::<Vec<_>>()
        })
        .collect();
    bench.plain_rows(rows);
    let mut weights = |i: usize| {
        let stack = bench.stack(&views[i]);
        ExpertWeights { stack, bias: biased.then(|| bench.vector(&biases[i])) }
    };
    let (gate_id, up_id, down_id) = (activation.gated().then(|| weights(0)), weights(1), weights(2));
    let [x_id, route, out] = [(hidden, &x[..]), (2 * top_k, &routes[..]), (hidden, &[])]
        .map(|(width, values)| bench.buffer(width, rows + 1, values));
    let op = {
        let (x, experts, gate, up, down) = (x_id, EXPERTS, gate_id, up_id, down_id);
        ExpertsOp { x, route, out, experts, top_k, hidden, d_ff, activation, gate, up, down }
    };
    bench.run(Op::Experts(op), rows + 1);
    let stored = |i: usize| Stored { matrices: &views[i], bias: biased.then_some(&biases[i][..]) };
    let truth =
        Experts { gate: activation.gated().then(|| stored(0)), up: stored(1), down: stored(2), activation };
    for row in 0..rows {
        let mut expected = vec![0.0; hidden];
        truth.sum(&x[row * hidden..][..hidden], &routes[row * 2 * top_k..][..2 * top_k], &mut expected);
        let error = rms(&bench.row(out, row), &expected);
        assert!(error <= 2e-6, "{up} {down} {activation:?} row {row}: {error:e} of the norm");
    }
    assert!(bench.row(out, rows).iter().all(|x| x.is_nan()), "rows past the last are left alone");
}

fn affine(bits: u8, group: u16) -> Format {
    Format::Affine { bits, group, scale: Float::BF16 }
}

#[test]
fn formats_follow_the_reference() {
    let shape = [256, 128, 3, 2];
    for format in [affine(4, 64), affine(4, 32), affine(8, 64), affine(3, 64), Format::Mxfp4, Format::Nvfp4] {
        check([format; 3], Activation::SwiGlu, false, shape);
    }
    check([affine(8, 64), affine(4, 32), affine(4, 64)], Activation::SwiGlu, true, shape);
    check([affine(4, 64), affine(4, 64), affine(6, 64)], Activation::SwiGlu, false, shape);
    check([Format::Dense(Float::BF16); 3], Activation::GeGlu, false, [64, 80, 2, 1]);
    check([Float::F32, Float::F32, Float::F16].map(Format::Dense), Activation::GeGlu, false, [64, 48, 1, 1]);
}

#[test]
fn many_rows_follow_the_reference() {
    let clamped = Activation::ClampedSwiGlu { limit: 7.0, alpha: 1.702 };
    check([affine(4, 64); 3], Activation::SwiGlu, false, [128, 192, 3, 11]);
    check([affine(4, 64); 3], Activation::SwiGlu, false, [64, 64, 5, 66]);
    check([affine(8, 64), affine(4, 32), affine(6, 64)], Activation::SwiGlu, true, [128, 64, 2, 9]);
    check([Format::Mxfp4; 3], clamped, true, [96, 160, 4, 12]);
    check([affine(3, 64), affine(3, 64), Format::Nvfp4], Activation::Relu2, true, [64, 80, 2, 10]);
    check([Format::Dense(Float::BF16); 3], Activation::GeGlu, false, [64, 80, 2, 9]);
}

#[test]
fn biases_activations_and_odd_widths() {
    let clamped = Activation::ClampedSwiGlu { limit: 7.0, alpha: 1.702 };
    check([Format::Mxfp4; 3], clamped, true, [320, 352, 4, 3]);
    check([affine(4, 64); 3], Activation::Relu2, true, [192, 64, 2, 2]);
    check([affine(4, 64); 3], Activation::SwiGlu, false, [576, 448, 5, 1]);
}
