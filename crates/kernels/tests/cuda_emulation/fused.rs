//! Ops that share launches leave in all buffers what they leave one by one.

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::cuda::StepRow;
use amoeba_kernels::testing::{OwnedMatrix, Rng};
use amoeba_plan::{
    Activation, AddOp, AttentionOp, BufferId, CacheId, CacheKind, ExpertWeights, ExpertsOp, KvAppendOp,
    NormKind, NormOp, Op, Rope, RopeId, RopeOp, RouterOp, RouterRule, Score, WeightId,
};

use crate::bench::Bench;

const HIDDEN: usize = 128;
const HEAD: usize = 32;
const EXPERTS: usize = 4;

/// A layer of attention and experts.
struct Layer {
    ops: Vec<Op>,
    buffers: Vec<(&'static str, BufferId)>,
    residual: BufferId,
    cache: CacheId,
}

/// What the ops of the layer name.
struct Parts {
    linears: [WeightId; 5],
    norms: [WeightId; 4],
    gate: ExpertWeights,
    up: ExpertWeights,
    down: ExpertWeights,
    rope: RopeId,
    cache: CacheId,
}

fn parts(bench: &mut Bench, rng: &mut Rng, v_bits: u8) -> Parts {
    let affine = |bits| Format::Affine { bits, group: 32, scale: Float::BF16 };
    let linears = [(4, 4 * HEAD), (4, 2 * HEAD), (v_bits, 2 * HEAD), (4, HIDDEN), (8, EXPERTS)]
        .map(|(bits, rows)| bench.matrix(&OwnedMatrix::random(affine(bits), rows, HIDDEN, rng).view()));
    let mut stack = |rows, cols| {
        let owned: Vec<OwnedMatrix> =
            (0..EXPERTS).map(|_| OwnedMatrix::random(affine(4), rows, cols, rng)).collect();
        let stack = bench.stack(&owned.iter().map(OwnedMatrix::view).collect::<Vec<_>>());
        ExpertWeights { stack, bias: None }
    };
    let (gate, up, down) = (stack(64, HIDDEN), stack(64, HIDDEN), stack(HIDDEN, 64));
    let norms = [HIDDEN, HIDDEN, HEAD, HEAD].map(|dim| bench.vector(&rng.vector(dim)));
    let frequencies = (0..HEAD / 2).map(|i| 1e4f64.powf(-(i as f64) / 16.0)).collect();
    let rope = bench.rope(Rope { dims: HEAD, interleaved: false, frequencies, amplitude: 1.0 });
    let cache = bench.cache(CacheKind::Kv { kv_heads: 2, k_dim: HEAD, v_dim: HEAD });
    Parts { linears, norms, gate, up, down, rope, cache }
}

fn router(logits: BufferId, out: BufferId) -> Op {
    let rule = RouterRule {
        top_k: 2,
        score: Score::Softmax,
        correction: None,
        groups: None,
        normalise: Some(0.0),
        scale: 1.0,
        per_expert: None,
    };
    let (correction, per_expert, input_gate) = (None, None, None);
    Op::Router(RouterOp { logits, out, experts: EXPERTS, rule, correction, per_expert, input_gate })
}

fn attention(cache: CacheId, q: BufferId, out: BufferId) -> Op {
    let (heads, kv_heads, head_dim, v_dim, scale) = (4, 2, HEAD, HEAD, 0.2);
    let (window, sinks, softcap) = (None, None, None);
    let op = AttentionOp { cache, q, out, heads, kv_heads, head_dim, v_dim, scale, window, sinks, softcap };
    Op::Attention(op)
}

fn layer(bench: &mut Bench, rng: &mut Rng, v_bits: u8) -> Layer {
    let mut buffers = Vec::new();
    let mut buffer = |name, width| {
        let id = bench.buffer(width, 4, &[]);
        buffers.push((name, id));
        id
    };
    let [residual, normed, branch] = ["residual", "normed", "branch"].map(|name| buffer(name, HIDDEN));
    let [q, attended] = ["q", "attended"].map(|name| buffer(name, 4 * HEAD));
    let [k, v] = ["k", "v"].map(|name| buffer(name, 2 * HEAD));
    let (logits, route) = (buffer("logits", EXPERTS), buffer("route", 4));
    let Parts { linears, norms, gate, up, down, rope, cache } = parts(bench, rng, v_bits);
    let norm = |x, out, weight: WeightId, chunks, dim| {
        let (kind, weight, scale) = (NormKind::Rms, Some(weight), 1.0);
        Op::Norm(NormOp { kind, weight, bias: None, per_chunk: false, eps: 1e-6, scale, chunks, dim, x, out })
    };
    let linear = |weight, x, out| bench.linear(weight, None, x, out);
    let turn = |x, heads| Op::Rope(RopeOp { rope, heads, head_dim: HEAD, first: 0, x });
    let add = Op::Add(AddOp { x: residual, y: branch, scale: 1.0, width: HIDDEN });
    let ops = vec![
        norm(residual, normed, norms[0], 1, HIDDEN),
        linear(linears[0], normed, q),
        linear(linears[1], normed, k),
        linear(linears[2], normed, v),
        norm(q, q, norms[2], 4, HEAD),
        norm(k, k, norms[3], 2, HEAD),
        turn(q, 4),
        turn(k, 2),
        Op::KvAppend(KvAppendOp { cache, kv_heads: 2, k_dim: HEAD, v_dim: HEAD, k, v }),
        attention(cache, q, attended),
        linear(linears[3], attended, branch),
        add.clone(),
        norm(residual, normed, norms[1], 1, HIDDEN),
        linear(linears[4], normed, logits),
        router(logits, route),
        Op::Experts(ExpertsOp {
            x: normed,
            route,
            out: branch,
            experts: EXPERTS,
            top_k: 2,
            hidden: HIDDEN,
            d_ff: 64,
            activation: Activation::SwiGlu,
            gate: Some(gate),
            up,
            down,
        }),
        add,
    ];
    Layer { ops, buffers, residual, cache }
}

#[test]
fn a_layer_leaves_the_same_in_every_buffer() {
    for (v_bits, rows, launches) in [(4, 4, [18, 7]), (6, 4, [18, 8]), (6, 20, [26, 16])] {
        let (mut rng, Some(mut bench)) = (Rng(18), Bench::new()) else { return };
        bench.rows(&[0, 2, 1].map(|slot| StepRow { slot, position: 33 * slot, ..StepRow::default() }));
        let layer = layer(&mut bench, &mut rng, v_bits);
        let x = rng.vector(3 * HIDDEN);
        // What the caches hold of the positions before.
        let bytes = bench.cache_bytes(layer.cache).len();
        let past: Vec<u8> = rng.vector(bytes / 4).iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut run = |fused| {
            bench.share_launches(fused);
            bench.forget_buffers();
            bench.write(layer.residual, &x);
            bench.set_cache(layer.cache, &past);
            let count = bench.run_all(layer.ops.clone(), rows);
            let rows = |id| (0..4).map(|row| bench.row(id, row)).collect::<Vec<_>>();
            let left: Vec<Vec<Vec<f32>>> = layer.buffers.iter().map(|(_, id)| rows(*id)).collect();
            (count, left, bench.cache_bytes(layer.cache).to_vec())
        };
        let (apart, together) = (run(false), run(true));
        assert_eq!([apart.0, together.0], launches);
        for (((name, _), apart), together) in layer.buffers.iter().zip(apart.1).zip(together.1) {
            assert!(together[3].iter().all(|x| x.is_nan()), "{name}: rows past the last are left alone");
            for (apart, together) in apart[..3].iter().zip(&together) {
                let largest = apart.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                for (a, b) in apart.iter().zip(together) {
                    assert!((a - b).abs() <= 2e-5 * largest, "{name}: {a} and {b}");
                }
            }
        }
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        for (a, b) in floats(&apart.2).iter().zip(floats(&together.2)) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "cache: {a} and {b}");
        }
    }
}
