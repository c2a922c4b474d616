//! Cases of the elementwise ops: odd widths, extremes, known values.

use amoeba_plan::GateKind;

use super::{add, gate_of, reference, scale, scale_of, temperature_of};
use crate::simd::Isa;
use crate::testing::Rng;

#[test]
fn sums_and_scales_follow_the_reference_on_every_instruction_set() {
    let mut rng = Rng(31);
    for n in [1, 15, 16, 17, 333] {
        let (x, y): (Vec<f32>, Vec<f32>) = (rng.vector(n), rng.vector(n));
        for (factor, cap) in [(0.22, None), (1.0, Some(30.0)), (50.0, Some(5.0))] {
            let (mut sums, mut scaled) = (x.clone(), x.clone());
            reference::add(&mut sums, &y, factor);
            reference::scale(&mut scaled, factor, cap);
            let allowed = cap.map_or(1e-7 * factor, |cap| 1e-6 * cap);
            for isa in Isa::available() {
                let mut found = x.clone();
                add(isa, &mut found, &y, factor);
                let off = found.iter().zip(&sums).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(off <= f32::EPSILON * (1.0 + factor), "{isa} × {n}, {factor}: off by {off:e}");
                found.copy_from_slice(&x);
                scale(isa, &mut found, factor, cap);
                let off = found.iter().zip(&scaled).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(off <= allowed, "{isa} × {n}, {factor} {cap:?}: off by {off:e}");
            }
        }
    }
    assert_eq!([scale_of(0.5, None), scale_of(0.5, Some(&[3.0]))], [0.5, 1.5]);
}

#[test]
fn not_a_number_stays_so() {
    for cap in [None, Some(30.0)] {
        let mut x = vec![f32::NAN; 20];
        scale(Isa::best(), &mut x, 2.0, cap);
        assert!(x.iter().all(|x| x.is_nan()));
    }
    for kind in [GateKind::Plain, GateKind::Sigmoid, GateKind::Softplus] {
        assert!(gate_of(kind, f32::NAN).is_nan(), "{kind:?}");
    }
}

#[test]
fn gates_at_known_points_and_at_the_ends() {
    assert_eq!(gate_of(GateKind::Plain, -3.5), -3.5);
    assert_eq!([-1e4, 0.0, 1e4].map(|x| gate_of(GateKind::Sigmoid, x)), [0.0, 0.5, 1.0]);
    let softplus = [-1e4, 0.0, 1.0, 1e4].map(|x| gate_of(GateKind::Softplus, x));
    assert_eq!(softplus, [0.0, std::f32::consts::LN_2, 1.313_261_6, 1e4]);
}

#[test]
fn attention_sharpens_by_whole_periods() {
    let of = |position| temperature_of(position, 0.1, 8192.0, 1.0);
    assert_eq!([of(0), of(8190)], [1.0, 1.0]);
    assert_eq!([of(8191), of(16_382)], [(1.0 + 0.1 * 2f64.ln()) as f32; 2]);
    assert_eq!(of(3 * 8192 - 1), (1.0 + 0.1 * 4f64.ln()) as f32);
}
