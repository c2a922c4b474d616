//! Cases of `attention`: short and long contexts, odd widths, grouped heads, sinks, soft caps, windows.

use super::{CHUNK, Element, Half, Head, KEY_STRIDE, Query, Scratch, Shape, chunk, finish, fold};
use super::{key_at, key_len, partial_len, reference, value_at, value_len};
use crate::simd::{Isa, LANES};
use crate::testing::Rng;

/// Keys and values in the order of the cache.
fn cached<E: Element + Default>(shape: &Shape, keys: &[f32], values: &[f32]) -> (Vec<E>, Vec<E>) {
    let n = keys.len() / shape.head_dim;
    let mut k = vec![E::default(); key_len(n, shape.head_dim)];
    let mut v = vec![E::default(); value_len(n.next_multiple_of(LANES), shape.v_dim)];
    for p in 0..n {
        for (d, key) in keys[p * shape.head_dim..][..shape.head_dim].iter().enumerate() {
            k[key_at(p, shape.head_dim) + KEY_STRIDE * d] = E::of(*key);
        }
        for (d, value) in values[p * shape.v_dim..][..shape.v_dim].iter().enumerate() {
            v[value_at(p, shape.v_dim) + d] = E::of(*value);
        }
    }
    (k, v)
}

/// Outputs of queries that see `visible` of the positions.
fn run(
    isa: Isa,
    shape: &Shape,
    q: &[f32],
    visible: &[(usize, usize)],
    head: Head<'_>,
    sink: Option<f32>,
) -> Vec<f32> {
    let len = partial_len(shape);
    let mut states = vec![f32::NEG_INFINITY; visible.len() * len];
    let mut partial = vec![0.0; visible.len() * len];
    let last = visible.iter().map(|(_, end)| *end).max().unwrap_or(0);
    for start in (0..last).step_by(CHUNK) {
        let clip = |p: usize| p.clamp(start, start + CHUNK) - start;
        let queries: Vec<Query<'_>> = q
            .chunks_exact(shape.head_dim)
            .zip(visible)
            .map(|(q, (first, end))| Query { q, first: clip(*first), end: clip(*end) })
            .collect();
        chunk(isa, shape, &queries, head.from(start, shape), &mut Scratch::default(), &mut partial);
        for (state, partial) in states.chunks_exact_mut(len).zip(partial.chunks_exact(len)) {
            fold(isa, state, partial);
        }
    }
    let mut out = vec![0.0; visible.len() * shape.v_dim];
    for (state, out) in states.chunks_exact(len).zip(out.chunks_exact_mut(shape.v_dim)) {
        finish(isa, state, sink, out);
    }
    out
}

fn shapes() -> impl Iterator<Item = (Shape, Option<f32>)> {
    let widths = [(64, 64), (128, 128), (80, 80), (192, 128), (48, 32), (20, 12), (576, 512)];
    widths.into_iter().flat_map(|(head_dim, v_dim)| {
        [(None, None), (Some(0.7), None), (None, Some(5.0))].map(|(sink, softcap)| {
            (Shape { head_dim, v_dim, scale: 1.0 / (head_dim as f32).sqrt(), softcap }, sink)
        })
    })
}

#[test]
fn attention_follows_the_reference_on_every_instruction_set() {
    let mut rng = Rng(9);
    for (shape, sink) in shapes() {
        for n in [1, 2, 31, 255, 256, 257, 1000] {
            let (keys, values) = (rng.vector(n * shape.head_dim), rng.vector(n * shape.v_dim));
            let q: Vec<f32> = rng.vector(11 * shape.head_dim).iter().map(|x| x * 4.0).collect();
            // Causal ends and windows, some ending chunks before the longest.
            let visible: Vec<(usize, usize)> =
                (0..11).map(|i| (n.saturating_sub(90 * (i + 1)), n - (i * n / 12).min(n - 1))).collect();
            let visible: Vec<(usize, usize)> =
                visible.iter().map(|(first, end)| ((*first).min(end - 1), *end)).collect();
            let (k, v) = cached::<f32>(&shape, &keys, &values);
            let first = run(Isa::Scalar, &shape, &q, &visible, Head::F32(&k, &v), sink);
            let mut truth = vec![0.0; shape.v_dim];
            for (i, out) in first.chunks_exact(shape.v_dim).enumerate() {
                let (from, to) = visible[i];
                reference::attend(
                    &shape,
                    &q[i * shape.head_dim..][..shape.head_dim],
                    &keys[from * shape.head_dim..to * shape.head_dim],
                    &values[from * shape.v_dim..to * shape.v_dim],
                    sink,
                    &mut truth,
                );
                for (y, truth) in out.iter().zip(&truth) {
                    assert!((y - truth).abs() < 1e-5, "{shape:?} {n} query {i}: {y} vs {truth}");
                }
            }
            for isa in Isa::available() {
                assert_eq!(run(isa, &shape, &q, &visible, Head::F32(&k, &v), sink), first, "{isa} {n}");
                // Alone or in company, a query's bits are the same.
                for i in [0, 4, 10] {
                    let q = &q[i * shape.head_dim..][..shape.head_dim];
                    let alone = run(isa, &shape, q, &visible[i..=i], Head::F32(&k, &v), sink);
                    assert_eq!(alone, first[i * shape.v_dim..][..shape.v_dim], "{isa} {n} query {i}");
                }
            }
        }
    }
}

#[test]
fn half_caches_stay_within_their_rounding() {
    let mut rng = Rng(10);
    for (shape, sink) in shapes() {
        let n = 300;
        let (keys, values) = (rng.vector(n * shape.head_dim), rng.vector(n * shape.v_dim));
        let q = rng.vector(shape.head_dim);
        let (k, v) = cached::<Half>(&shape, &keys, &values);
        let (k32, v32) = cached::<f32>(&shape, &keys, &values);
        let exact = run(Isa::Scalar, &shape, &q, &[(0, n)], Head::F32(&k32, &v32), sink);
        for isa in Isa::available() {
            let half = run(isa, &shape, &q, &[(0, n)], Head::F16(&k, &v), sink);
            // 2^-11 of each value, and of each score (at most scale·Σ|q| ≤ sqrt(head_dim)) times the spread
            // of values.
            let allowed = 2f32.powi(-11) * (1.0 + 2.0 * (shape.head_dim as f32).sqrt());
            for (y, truth) in half.iter().zip(&exact) {
                assert!((y - truth).abs() <= allowed, "{isa} {shape:?}: {y} vs {truth}");
            }
        }
    }
}

#[test]
fn a_nan_reaches_the_output() {
    let shape = Shape { head_dim: 32, v_dim: 32, scale: 1.0, softcap: None };
    let mut keys = vec![0.1; 40 * 32];
    keys[17 * 32] = f32::NAN;
    let (k, v) = cached::<f32>(&shape, &keys, &vec![1.0; 40 * 32]);
    for isa in Isa::available() {
        let out = run(isa, &shape, &[1.0; 32], &[(0, 40)], Head::F32(&k, &v), None);
        assert!(out.iter().all(|y| y.is_nan()), "{isa}");
    }
}
