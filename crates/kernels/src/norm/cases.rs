//! Cases of `norm`: both kinds, with and without weights, widths that do not fill a vector.

use amoeba_plan::NormKind;

use super::{Norm, cpu, reference};
use crate::simd::Isa;
use crate::testing::Rng;

#[test]
fn norms_follow_the_reference_and_agree_on_every_instruction_set() {
    let mut rng = Rng(5);
    for dim in [1, 5, 16, 24, 80, 128, 320, 2048, 2050] {
        for kind in [NormKind::Rms, NormKind::Layer] {
            for (with_weight, with_bias) in [(false, false), (true, false), (true, true)] {
                let (x, weight, bias) = (rng.vector(dim), rng.vector(dim), rng.vector(dim));
                let norm = Norm {
                    kind,
                    weight: with_weight.then_some(&weight[..]),
                    bias: with_bias.then_some(&bias[..]),
                    eps: 1e-6,
                    scale: if with_bias { 0.088 } else { 1.0 },
                };
                let mut truth = x.clone();
                reference::norm(&norm, &mut truth);
                let mut first: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    let mut y = x.clone();
                    cpu::norm(isa, &norm, &mut y);
                    let scale = truth.iter().fold(norm.scale, |m, x| m.max(x.abs()));
                    // A layer norm of one element is all cancellation; its exact value is the bias.
                    for (y, truth) in y.iter().zip(&truth) {
                        assert!((y - truth).abs() <= 4e-6 * scale, "{kind:?} {dim} on {isa}: {y} vs {truth}");
                    }
                    let first = first.get_or_insert_with(|| y.clone());
                    assert_eq!(y, *first, "{kind:?} {dim} on {isa}");
                }
            }
        }
    }
}
