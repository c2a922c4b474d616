//! Ops that share launches leave in all buffers what they leave one by one.

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::gpu::StepRow;
use amoeba_kernels::testing::{OwnedMatrix, Rng, attention, rms_norm, router_rule, views};
use amoeba_plan::{
    Activation, AddOp, BufferId, CacheId, CacheKind, ExpertWeights, ExpertsOp, KvAppendOp, Op, Rope, RopeId,
    RopeOp, RouterOp, RouterRule, Score, WeightId,
};

use crate::bench::Bench;

const HEAD: usize = 32;
const EXPERTS: usize = 4;

/// A layer of attention and experts.
pub struct Layer {
    pub ops: Vec<Op>,
    pub buffers: Vec<(&'static str, BufferId)>,
    pub residual: BufferId,
    pub cache: CacheId,
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

fn parts(bench: &mut Bench, rng: &mut Rng, hidden: usize, v_bits: u8) -> Parts {
    let affine = |bits| Format::Affine { bits, group: 32, scale: Float::BF16 };
    let linears = [(4, hidden), (4, 2 * HEAD), (v_bits, 2 * HEAD), (4, hidden), (8, EXPERTS)]
        .map(|(bits, rows)| bench.matrix(&OwnedMatrix::random(affine(bits), rows, hidden, rng).view()));
    let mut stack = |rows, cols| {
        let stack = bench.stack(&views(&OwnedMatrix::stack(affine(4), EXPERTS, rows, cols, rng)));
        ExpertWeights { stack, bias: None }
    };
    let (gate, up, down) = (stack(hidden / 2, hidden), stack(hidden / 2, hidden), stack(hidden, hidden / 2));
    let norms = [hidden, hidden, HEAD, HEAD].map(|dim| bench.vector(&rng.vector(dim)));
    let frequencies = (0..HEAD / 2).map(|i| 1e4f64.powf(-(i as f64) / 16.0)).collect();
    let rope = bench.rope(Rope { dims: HEAD, interleaved: false, frequencies, amplitude: 1.0 });
    let cache = bench.cache(CacheKind::Kv { kv_heads: 2, k_dim: HEAD, v_dim: HEAD });
    Parts { linears, norms, gate, up, down, rope, cache }
}

fn router(logits: BufferId, out: BufferId) -> Op {
    let rule = RouterRule { normalise: Some(0.0), ..router_rule(Score::Softmax, 2) };
    let (correction, per_expert, input_gate) = (None, None, None);
    Op::Router(RouterOp { logits, out, experts: EXPERTS, rule, correction, per_expert, input_gate })
}

/// As many query heads as `hidden` has room for.
pub fn layer(bench: &mut Bench, rng: &mut Rng, hidden: usize, v_bits: u8) -> Layer {
    let mut buffers = Vec::new();
    let mut buffer = |name, width| {
        let id = bench.buffer(width, 4, &[]);
        buffers.push((name, id));
        id
    };
    let [residual, normed, branch] = ["residual", "normed", "branch"].map(|name| buffer(name, hidden));
    let [q, attended] = ["q", "attended"].map(|name| buffer(name, hidden));
    let [k, v] = ["k", "v"].map(|name| buffer(name, 2 * HEAD));
    let (logits, route) = (buffer("logits", EXPERTS), buffer("route", 4));
    let Parts { linears, norms, gate, up, down, rope, cache } = parts(bench, rng, hidden, v_bits);
    let norm =
        |x, out, weight: WeightId, chunks, dim| Op::Norm(rms_norm(x, out, Some(weight), [chunks, dim]));
    let linear = |weight, x, out| bench.linear(weight, None, x, out);
    let turn = |x, heads| Op::Rope(RopeOp { rope, heads, head_dim: HEAD, first: 0, x });
    let add = Op::Add(AddOp { x: residual, y: branch, scale: 1.0, width: hidden });
    let (heads, experts, top_k, d_ff, activation) =
        (hidden / HEAD, EXPERTS, 2, hidden / 2, Activation::SwiGlu);
    let (x, out, gate) = (normed, branch, Some(gate));
    let experts = ExpertsOp { x, route, out, experts, top_k, hidden, d_ff, activation, gate, up, down };
    let ops = vec![
        norm(residual, normed, norms[0], 1, hidden),
        linear(linears[0], normed, q),
        linear(linears[1], normed, k),
        linear(linears[2], normed, v),
        norm(q, q, norms[2], heads, HEAD),
        norm(k, k, norms[3], 2, HEAD),
        turn(q, heads),
        turn(k, 2),
        Op::KvAppend(KvAppendOp { cache, kv_heads: 2, k_dim: HEAD, v_dim: HEAD, k, v }),
        Op::Attention(attention(cache, q, attended, [heads, 2, HEAD, HEAD], 0.2)),
        linear(linears[3], attended, branch),
        add.clone(),
        norm(residual, normed, norms[1], 1, hidden),
        linear(linears[4], normed, logits),
        router(logits, route),
        Op::Experts(experts),
        add,
    ];
    Layer { ops, buffers, residual, cache }
}

#[test]
fn a_layer_leaves_the_same_in_every_buffer() {
    for (v_bits, rows, launches) in [(4, 4, [18, 7]), (6, 4, [18, 8]), (6, 20, [26, 16])] {
        let (mut rng, Some(mut bench)) = (Rng(18), Bench::new()) else { return };
        bench.rows(&[0, 2, 1].map(|slot| StepRow { slot, position: 33 * slot, ..StepRow::default() }));
        let layer = layer(&mut bench, &mut rng, 128, v_bits);
        let x = rng.vector(3 * 128);
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
