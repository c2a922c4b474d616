//! Cases of `conv`: channels that do not fill a vector, every kernel width in use, with and without bias and
//! SiLU.

use super::{Filter, pack, reference, state_len, step};
use crate::simd::{Isa, LANES};
use crate::testing::Rng;

/// Outputs of all positions; the channels in parts of `blocks` blocks, each part over all positions at once.
fn run(isa: Isa, filter: &Filter<'_>, xs: &[f32], channels: usize, blocks: usize) -> Vec<f32> {
    let (taps, mut out) = (filter.taps, vec![0.0; xs.len()]);
    for first in (0..channels).step_by(blocks * LANES) {
        let end = (first + blocks * LANES).min(channels);
        let mut state = vec![0.0; state_len(end - first, taps)];
        let part = Filter {
            weights: &filter.weights[first * (taps + 1)..],
            bias: filter.bias.map(|bias| &bias[first..end]),
            ..*filter
        };
        for (t, (x, out)) in xs.chunks_exact(channels).zip(out.chunks_exact_mut(channels)).enumerate() {
            step(isa, &part, t % taps.max(1), &x[first..end], &mut state, &mut out[first..end]);
        }
    }
    out
}

#[test]
fn convolutions_follow_the_reference_on_every_instruction_set() {
    let mut rng = Rng(31);
    for channels in [1, 5, 16, 24, 100, 256] {
        for (taps, with_bias, silu) in
            [(3, false, true), (3, true, true), (2, false, false), (1, true, false), (0, true, true)]
        {
            let weights = rng.vector(channels * (taps + 1));
            let bias = rng.vector(channels);
            let xs: Vec<f32> = rng.vector(channels * 11).iter().map(|x| x * 5.0).collect();
            let packed = pack(&weights, taps);
            let filter = Filter { weights: &packed, bias: with_bias.then_some(&bias[..]), taps, silu };
            let first = run(Isa::Scalar, &filter, &xs, channels, channels);
            for isa in Isa::available() {
                for blocks in [1, 3, channels] {
                    assert_eq!(run(isa, &filter, &xs, channels, blocks), first, "{channels} × {taps}, {isa}");
                }
            }
            let (mut kept, mut truth) = (vec![0.0; channels * taps], vec![0.0; channels]);
            for (t, (x, y)) in xs.chunks_exact(channels).zip(first.chunks_exact(channels)).enumerate() {
                reference::step(&weights, filter.bias, silu, &mut kept, x, &mut truth);
                for c in 0..channels {
                    let inputs = (0..=taps.min(t)).map(|j| {
                        f64::from((weights[c * (taps + 1) + taps - j] * xs[(t - j) * channels + c]).abs())
                    });
                    let size = inputs.sum::<f64>() + f64::from(bias[c].abs());
                    let sum = 1.1 * (taps + 2) as f64 * 2f64.powi(-24) * size;
                    let allowed = sum + 1e-6 * f64::from(truth[c].abs());
                    let error = f64::from((y[c] - truth[c]).abs());
                    assert!(error <= allowed, "{channels} × {taps} at {t}: {} vs {}", y[c], truth[c]);
                }
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_channel_for_as_long_as_the_kernel_is_wide() {
    let (channels, taps) = (20, 2);
    let packed = pack(&vec![1.0; channels * (taps + 1)], taps);
    let filter = Filter { weights: &packed, bias: None, taps, silu: true };
    let mut xs = vec![0.5; channels * 5];
    xs[channels + 18] = f32::NAN;
    for isa in Isa::available() {
        let out = run(isa, &filter, &xs, channels, 1);
        for (i, y) in out.iter().enumerate() {
            let (t, c) = (i / channels, i % channels);
            assert_eq!(y.is_nan(), c == 18 && (1..=3).contains(&t), "{isa}: position {t}, channel {c}");
        }
    }
}
