//! Attention of one row in one launch with norms, rotations and the append before: what it leaves is what
//! they leave one by one.

use amoeba_kernels::gpu::{Setting, StepRow};
use amoeba_kernels::testing::{Rng, attention, rms_norm};
use amoeba_plan::{AttentionOp, BufferId, CacheKind, KvAppendOp, NormOp, Op, Rope, RopeOp, Window};

use crate::bench::Bench;

/// What a case varies.
#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    k_dim: usize,
    v_dim: usize,
    /// Of queries, keys and values.
    norms: [bool; 3],
    /// Of queries and keys: pairs, and the first element that turns.
    rope: Option<(usize, usize)>,
    interleaved: bool,
    window: Option<Window>,
    sinks: bool,
    kv_f16: bool,
    multiprocessors: u32,
}

const PLAIN: Case = Case {
    heads: 8,
    kv_heads: 2,
    k_dim: 32,
    v_dim: 32,
    norms: [true, true, false],
    rope: Some((16, 0)),
    interleaved: false,
    window: None,
    sinks: false,
    kv_f16: false,
    multiprocessors: 132,
};

/// The ops, and the buffer that the last one writes.
fn ops(bench: &mut Bench, rng: &mut Rng, case: Case) -> (Vec<Op>, [BufferId; 4]) {
    let Case { heads, kv_heads, k_dim, v_dim, .. } = case;
    let cache = bench.cache(CacheKind::Kv { kv_heads, k_dim, v_dim });
    let [q, k, v, out] = [heads * k_dim, kv_heads * k_dim, kv_heads * v_dim, heads * v_dim]
        .map(|width| bench.buffer(width, 1, &[]));
    let mut ops = Vec::new();
    for (i, (x, chunks, dim)) in
        [(q, heads, k_dim), (k, kv_heads, k_dim), (v, kv_heads, v_dim)].into_iter().enumerate()
    {
        if case.norms[i] {
            // Values have no weight.
            let weight = (i < 2).then(|| bench.vector(&rng.vector(dim)));
            ops.push(Op::Norm(NormOp { scale: 1.5, ..rms_norm(x, x, weight, [chunks, dim]) }));
        }
    }
    if let Some((pairs, first)) = case.rope {
        let frequencies = (0..pairs).map(|i| 1e4f64.powf(-(i as f64) / pairs as f64)).collect();
        let interleaved = case.interleaved;
        let rope = bench.rope(Rope { dims: 2 * pairs, interleaved, frequencies, amplitude: 1.1 });
        ops.extend(
            [(q, heads), (k, kv_heads)]
                .map(|(x, heads)| Op::Rope(RopeOp { rope, heads, head_dim: k_dim, first, x })),
        );
    }
    ops.push(Op::KvAppend(KvAppendOp { cache, kv_heads, k_dim, v_dim, k, v }));
    let sinks = case.sinks.then(|| bench.vector(&rng.vector(heads)));
    let (window, sizes) = (case.window, [heads, kv_heads, k_dim, v_dim]);
    ops.push(Op::Attention(AttentionOp { window, sinks, ..attention(cache, q, out, sizes, 0.3) }));
    (ops, [q, k, v, out])
}

fn check(case: Case) {
    let Case { heads, kv_heads, k_dim, v_dim, kv_f16, multiprocessors, .. } = case;
    let setting =
        Setting { slots: 2, context: 160, kv_f16, multiprocessors, arch: 90, fused: false, x_terms: 2 };
    let (mut rng, Some(mut bench)) = (Rng(21), Bench::of(setting)) else { return };
    let (ops, [q, k, v, out]) = ops(&mut bench, &mut rng, case);
    let Some(Op::Attention(AttentionOp { cache, .. })) = ops.last().cloned() else { unreachable!() };
    let inputs = [(q, heads * k_dim), (k, kv_heads * k_dim), (v, kv_heads * v_dim)]
        .map(|(buffer, width)| (buffer, rng.vector(width)));
    // What the cache holds of all positions, of which those from the row's on are not to be seen.
    let bytes = bench.cache_bytes(cache).len();
    let past: Vec<u8> = match kv_f16 {
        true => rng.vector(bytes / 2).iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
        false => rng.vector(bytes / 4).iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    for position in [0, 31, 32, 37, 149] {
        bench.rows(&[StepRow { slot: 1, position, ..StepRow::default() }]);
        let mut run = |fused| {
            bench.share_launches(fused);
            bench.forget_buffers();
            inputs.iter().for_each(|(buffer, values)| bench.write(*buffer, values));
            bench.set_cache(cache, &past);
            let launches = bench.run_all(ops.clone(), 1);
            (launches, bench.row(out, 0), bench.cache_bytes(cache).to_vec())
        };
        let (apart, together) = (run(false), run(true));
        assert_eq!([apart.0, together.0], [ops.len(), 1], "{case:?}");
        for (a, b) in apart.1.iter().zip(&together.1) {
            assert!((a - b).abs() <= 2e-6 * a.abs().max(1.0), "{case:?} at {position}: {a} and {b}");
        }
        assert!(apart.2 == together.2, "{case:?} at {position}: cache");
    }
}

#[test]
fn norms_and_rotations() {
    check(PLAIN);
    check(Case { kv_f16: true, sinks: true, norms: [true; 3], ..PLAIN });
    check(Case { norms: [false; 3], rope: Some((8, 16)), interleaved: true, ..PLAIN });
    check(Case { norms: [false, true, true], rope: None, ..PLAIN });
}

#[test]
fn widths_and_groups() {
    for (heads, kv_heads, k_dim, v_dim) in [
        (3, 3, 20, 12),
        (16, 2, 128, 128),
        (2, 1, 192, 128),
        (10, 2, 80, 80),
        (7, 1, 64, 64),
        (4, 1, 256, 256),
    ] {
        let rope = Some((k_dim / 4, 0));
        check(Case { heads, kv_heads, k_dim, v_dim, rope, ..PLAIN });
        check(Case { heads, kv_heads, k_dim, v_dim, rope, kv_f16: true, ..PLAIN });
    }
}

#[test]
fn windows_and_splits() {
    for multiprocessors in [1, 12] {
        check(Case { multiprocessors, sinks: true, ..PLAIN });
        check(Case { multiprocessors, window: Some(Window::Sliding(50)), ..PLAIN });
        check(Case { multiprocessors, window: Some(Window::Chunk(64)), ..PLAIN });
        check(Case { multiprocessors, window: Some(Window::Sliding(1)), ..PLAIN });
    }
}
