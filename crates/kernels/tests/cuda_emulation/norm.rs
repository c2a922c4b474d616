//! `norm`: rows and heads, both kinds, weights of all chunks or of each.

use amoeba_kernels::norm::{Norm, reference};
use amoeba_kernels::testing::Rng;
use amoeba_plan::{NormKind, NormOp};

use crate::bench::Bench;

fn check(kind: NormKind, chunks: usize, dim: usize, weighted: bool, per_chunk: bool, rng: &mut Rng) {
    let Some(mut bench) = Bench::new() else { return };
    let (rows, width) = (2, chunks * dim);
    let values: Vec<f32> = rng.vector(rows * width).iter().map(|x| 3.0 * x + 1.0).collect();
    let learned = if per_chunk { width } else { dim };
    let (weight, bias) = (rng.vector(learned), rng.vector(learned));
    bench.plain_rows(rows);
    let ids = weighted.then(|| (bench.vector(&weight), bench.vector(&bias)));
    let (x, out) = (bench.buffer(width, rows, &values), bench.buffer(width, rows + 1, &[]));
    let (eps, scale) = (1e-5, 1.25);
    let [weight_id, bias_id] = [ids.map(|ids| ids.0), ids.map(|ids| ids.1)];
    let op = NormOp { kind, weight: weight_id, bias: bias_id, per_chunk, eps, scale, chunks, dim, x, out };
    bench.run(amoeba_plan::Op::Norm(op), 4);
    let learned = |all| weighted.then_some(all);
    let norm = Norm { kind, weight: learned(&weight[..]), bias: learned(&bias[..]), eps, scale };
    for (row, values) in values.chunks(width).enumerate() {
        let mut truth = values.to_vec();
        for (i, chunk) in truth.chunks_mut(dim).enumerate() {
            let own = if per_chunk && weighted { norm.of_chunk(i, dim) } else { norm };
            reference::norm(&own, chunk);
        }
        let largest = truth.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let allowed = largest * (1e-6 + dim as f32 / 64.0 * f32::EPSILON);
        for (y, truth) in bench.row(out, row).iter().zip(truth) {
            assert!((y - truth).abs() <= allowed, "{kind:?} {chunks} x {dim}: {y} vs {truth}");
        }
    }
    assert!(bench.row(out, rows).iter().all(|x| x.is_nan()), "rows past the last are left alone");
}

#[test]
fn rows_and_heads_follow_the_reference() {
    let mut rng = Rng(5);
    for kind in [NormKind::Rms, NormKind::Layer] {
        for (chunks, dim) in [(1, 1), (1, 33), (11, 128), (3, 64), (1, 2048), (2, 1000)] {
            check(kind, chunks, dim, false, false, &mut rng);
            check(kind, chunks, dim, true, false, &mut rng);
        }
        check(kind, 9, 40, true, true, &mut rng);
        check(kind, 2, 512, true, true, &mut rng);
    }
}
