//! `kv_append` and `attention`: odd widths, grouped heads, windows, sinks, soft caps, split contexts, both
//! element types.

use amoeba_kernels::attention::{Shape, first_visible, reference};
use amoeba_kernels::gpu::{Setting, StepRow};
use amoeba_kernels::testing::{Rng, attention};
use amoeba_plan::{AttentionOp, CacheKind, KvAppendOp, Op, Window};

use crate::bench::Bench;

/// What a case varies.
#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    v_dim: usize,
    window: Option<Window>,
    sinks: bool,
    softcap: Option<f32>,
    kv_f16: bool,
    multiprocessors: u32,
}

const PLAIN: Case = Case {
    heads: 4,
    kv_heads: 2,
    head_dim: 32,
    v_dim: 32,
    window: None,
    sinks: false,
    softcap: None,
    kv_f16: false,
    multiprocessors: 3,
};

impl Case {
    fn setting(self) -> Setting {
        let Case { kv_f16, multiprocessors, .. } = self;
        Setting { slots: 3, context: 160, kv_f16, multiprocessors, arch: 90, fused: false, x_terms: 2 }
    }
}

/// Two sequences of 150 positions, then three rows that look at them.
fn check(case: Case) -> Option<()> {
    let mut rng = Rng(12);
    let mut bench = Bench::of(case.setting())?;
    let Case { heads, kv_heads, head_dim, v_dim, window, softcap, .. } = case;
    let cache = bench.cache(CacheKind::Kv { kv_heads, k_dim: head_dim, v_dim });
    let rounded = |x: Vec<f32>| -> Vec<f32> {
        if case.kv_f16 { x.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect() } else { x }
    };
    let (keys, values) =
        (rounded(rng.vector(300 * kv_heads * head_dim)), rounded(rng.vector(300 * kv_heads * v_dim)));
    let at =
        |i: usize| StepRow { slot: 2 * (i as u32 / 150), position: i as u32 % 150, ..StepRow::default() };
    bench.rows(&(0..300).map(at).collect::<Vec<_>>());
    let (k, v) =
        (bench.buffer(kv_heads * head_dim, 300, &keys), bench.buffer(kv_heads * v_dim, 300, &values));
    bench.run(Op::KvAppend(KvAppendOp { cache, kv_heads, k_dim: head_dim, v_dim, k, v }), 300);

    let sinks = rng.vector(heads);
    let sinks_id = case.sinks.then(|| bench.vector(&sinks));
    let seen = [149, 299, 37];
    bench.rows(&seen.map(at));
    let queries: Vec<f32> = rng.vector(3 * heads * head_dim).iter().map(|x| x * 3.0).collect();
    let (q, out) = (bench.buffer(heads * head_dim, 4, &queries), bench.buffer(heads * v_dim, 4, &[]));
    let scale = 1.0 / (head_dim as f32).sqrt();
    let sizes = [heads, kv_heads, head_dim, v_dim];
    let op = AttentionOp { window, sinks: sinks_id, softcap, ..attention(cache, q, out, sizes, scale) };
    let shape = Shape { head_dim, v_dim, scale, softcap };
    for rows in [4, 12, 20] {
        bench.write(out, &[]);
        bench.run(Op::Attention(op), rows);
        for (row, last) in seen.into_iter().enumerate() {
            let first = last / 150 * 150 + first_visible(last % 150, window);
            for head in 0..heads {
                let kv_head = head / (heads / kv_heads);
                let gather = |all: &[f32], dim: usize| -> Vec<f32> {
                    (first..=last)
                        .flat_map(|p| all[(p * kv_heads + kv_head) * dim..][..dim].to_vec())
                        .collect()
                };
                let query = &queries[(row * heads + head) * head_dim..][..head_dim];
                let (keys, values) = (gather(&keys, head_dim), gather(&values, v_dim));
                let mut truth = vec![0.0; v_dim];
                reference::attend(&shape, query, &keys, &values, case.sinks.then(|| sinks[head]), &mut truth);
                let y = &bench.row(out, row)[head * v_dim..][..v_dim];
                // Of many rows, sixteen bits of queries, keys and values are taken.
                let allowed = if rows > 16 { 3e-5 } else { 1e-5 };
                for (y, truth) in y.iter().zip(truth) {
                    assert!((y - truth).abs() <= allowed, "{case:?}, row {row}, head {head}: {y} vs {truth}");
                }
            }
        }
        assert!(bench.row(out, 3).iter().all(|x| x.is_nan()), "rows past the last are left alone");
    }
    Some(())
}

#[test]
fn widths_and_groups() {
    for (heads, kv_heads, head_dim, v_dim) in
        [(4, 2, 32, 32), (8, 1, 64, 64), (3, 3, 20, 12), (16, 2, 128, 128), (4, 1, 192, 128), (10, 2, 80, 80)]
    {
        check(Case { heads, kv_heads, head_dim, v_dim, ..PLAIN });
        check(Case { heads, kv_heads, head_dim, v_dim, kv_f16: true, ..PLAIN });
    }
    check(Case { heads: 4, kv_heads: 1, head_dim: 576, v_dim: 512, ..PLAIN });
}

#[test]
fn windows_sinks_and_soft_caps() {
    for window in [None, Some(Window::Sliding(1)), Some(Window::Sliding(50)), Some(Window::Chunk(64))] {
        check(Case { window, sinks: true, ..PLAIN });
        check(Case { window, softcap: Some(2.0), ..PLAIN });
    }
}

#[test]
fn one_part_or_many() {
    for multiprocessors in [1, 132] {
        check(Case { multiprocessors, sinks: true, ..PLAIN });
    }
}
