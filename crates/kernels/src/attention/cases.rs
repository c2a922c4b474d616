//! Cases of `attention`: short and long contexts, odd widths, grouped heads, sinks, soft caps.

use super::{CHUNK, Heads, Shape, chunk, merge, reference};
use crate::simd::Isa;
use crate::testing::Rng;

fn run(
    isa: Isa,
    shape: &Shape,
    heads: Heads<'_>,
    keys: &[f32],
    values: &[f32],
    sink: Option<f32>,
) -> Vec<f32> {
    let n = keys.len() / shape.head_dim;
    let width = shape.v_dim + 2;
    let chunks = n.div_ceil(CHUNK);
    let mut partials = vec![0.0; chunks * heads.count * width];
    for (i, out) in partials.chunks_exact_mut(heads.count * width).enumerate() {
        let (from, to) = (i * CHUNK, n.min((i + 1) * CHUNK));
        let keys = &keys[from * shape.head_dim..to * shape.head_dim];
        let values = &values[from * shape.v_dim..to * shape.v_dim];
        chunk(isa, shape, heads, keys, values, &mut [0.0; CHUNK], out);
    }
    let mut out = vec![0.0; heads.count * shape.v_dim];
    for (h, out) in out.chunks_exact_mut(shape.v_dim).enumerate() {
        merge(isa, &partials[h * width..], heads.count * width, chunks, sink, out);
    }
    out
}

#[test]
fn attention_follows_the_reference_on_every_instruction_set() {
    let mut rng = Rng(9);
    for (head_dim, v_dim) in [(64, 64), (128, 128), (80, 80), (192, 128), (20, 12)] {
        for n in [1, 2, 31, 255, 256, 257, 1000] {
            for (sink, softcap) in [(None, None), (Some(0.7), None), (None, Some(5.0))] {
                let shape = Shape { head_dim, v_dim, scale: 1.0 / (head_dim as f32).sqrt(), softcap };
                let (q, keys, values) =
                    (rng.vector(3 * head_dim), rng.vector(n * head_dim), rng.vector(n * v_dim));
                let q: Vec<f32> = q.iter().map(|x| x * 4.0).collect();
                let heads = Heads { q: &q, count: 3 };
                let first = run(Isa::Scalar, &shape, heads, &keys, &values, sink);
                let mut truth = vec![0.0; v_dim];
                for (h, out) in first.chunks_exact(v_dim).enumerate() {
                    reference::attend(
                        &shape,
                        &q[h * head_dim..][..head_dim],
                        &keys,
                        &values,
                        sink,
                        &mut truth,
                    );
                    for (y, truth) in out.iter().zip(&truth) {
                        assert!((y - truth).abs() < 1e-5, "{head_dim} {n}: {y} vs {truth}");
                    }
                }
                for isa in Isa::available() {
                    assert_eq!(run(isa, &shape, heads, &keys, &values, sink), first, "{isa} {head_dim} {n}");
                }
            }
        }
    }
}
