//! Cases of `delta_net`: widths that fill no vector and no chain, one decay per head or per channel, long
//! runs, NaN.

use super::{Head, Scratch, Token, rates, reference, state_len, step};
use crate::simd::{Isa, LANES};
use crate::testing::Rng;

/// Inputs of some positions of one head.
struct Case {
    k_dim: usize,
    v_dim: usize,
    a_log: f32,
    dt_bias: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    beta: Vec<f32>,
}

impl Case {
    fn random(rng: &mut Rng, k_dim: usize, v_dim: usize, per_channel: bool, positions: usize) -> Case {
        let decays = if per_channel { k_dim } else { 1 };
        let mut unit = || -> Vec<f32> {
            let x = rng.vector(k_dim);
            let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt() * 1.000_001;
            x.iter().map(|x| x / norm).collect()
        };
        let (q, k) = (0..positions).map(|_| (unit(), unit())).collect::<(Vec<_>, Vec<_>)>();
        let mut wide = |n: usize, by: f32| rng.vector(n).iter().map(|x| x * by).collect::<Vec<f32>>();
        Case {
            k_dim,
            v_dim,
            a_log: wide(1, 2.0)[0],
            dt_bias: wide(decays, 2.0),
            q: q.concat(),
            k: k.concat(),
            v: wide(positions * v_dim, 3.0),
            decay: wide(positions * decays, 4.0),
            beta: wide(positions, 4.0),
        }
    }

    fn positions(&self) -> usize {
        self.beta.len()
    }

    fn token(&self, t: usize) -> Token<'_> {
        let of = |x: &'_ [f32], width: usize| -> std::ops::Range<usize> {
            let start = t * width;
            debug_assert!(start + width <= x.len());
            start..start + width
        };
        Token {
            q: &self.q[of(&self.q, self.k_dim)],
            k: &self.k[of(&self.k, self.k_dim)],
            v: &self.v[of(&self.v, self.v_dim)],
            decay: &self.decay[of(&self.decay, self.dt_bias.len())],
            beta: self.beta[t],
        }
    }

    /// Outputs; the rows of the state in parts of `blocks` blocks, each part over all positions at once.
    fn run(&self, isa: Isa, blocks: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.positions() * self.v_dim];
        let head = Head { rate: rates(&[self.a_log])[0], dt_bias: &self.dt_bias };
        let mut scratch = Scratch::new(self.k_dim);
        for first in (0..self.v_dim).step_by(blocks * LANES) {
            let end = (first + blocks * LANES).min(self.v_dim);
            let mut state = vec![0.0; state_len(end - first, self.k_dim)];
            for (t, out) in out.chunks_exact_mut(self.v_dim).enumerate() {
                let token = self.token(t);
                let token = Token { v: &token.v[first..end], ..token };
                step(isa, &head, &token, &mut scratch, &mut state, &mut out[first..end]);
            }
        }
        out
    }

    /// Holds outputs against the reference by the bound of the contract.
    fn check(&self, found: &[f32]) {
        let u = 2f64.powi(-24);
        let chain = self.k_dim as f64 / 4.0;
        let mut state = vec![0.0; self.v_dim * self.k_dim];
        let (mut errors, mut truth) = (vec![0.0; self.v_dim], vec![0.0; self.v_dim]);
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut used = 0.0f64;
        for (t, found) in found.chunks_exact(self.v_dim).enumerate() {
            let token = self.token(t);
            let before: Vec<f64> = state.chunks_exact(self.k_dim).map(norm).collect();
            reference::step(self.a_log, &self.dt_bias, &token, &mut state, &mut truth);
            let q = norm(&token.q.iter().map(|&q| f64::from(q)).collect::<Vec<_>>());
            let decay = |(d, b): (&f32, &f32)| {
                (-f64::from(self.a_log).exp() * (f64::from(*d) + f64::from(*b)).exp().ln_1p()).exp()
            };
            let decay = token.decay.iter().zip(&self.dt_bias).map(decay).fold(0.0, f64::max);
            for r in 0..self.v_dim {
                let size = before[r].max(norm(&state[r * self.k_dim..][..self.k_dim]));
                let v = f64::from(token.v[r].abs());
                errors[r] = decay * errors[r] + u * ((chain + 24.0) * size + 16.0 * v);
                let allowed = q * (errors[r] + u * (chain + 3.0) * size) + u * f64::from(truth[r].abs());
                let error = f64::from((found[r] - truth[r]).abs());
                used = used.max(error / allowed);
                assert!(
                    error <= allowed,
                    "{} × {} at {t}, row {r}: {} vs {}",
                    self.v_dim,
                    self.k_dim,
                    found[r],
                    truth[r]
                );
            }
        }
        println!("{} × {}: {:.0} % of what is allowed", self.v_dim, self.k_dim, used * 100.0);
    }
}

#[test]
fn the_rule_follows_the_reference_on_every_instruction_set() {
    let mut rng = Rng(41);
    for (k_dim, v_dim) in [(1, 1), (7, 5), (16, 16), (24, 40), (64, 64), (128, 128), (130, 100)] {
        for per_channel in [false, true] {
            let case = Case::random(&mut rng, k_dim, v_dim, per_channel, 50);
            let first = case.run(Isa::Scalar, v_dim);
            case.check(&first);
            for isa in Isa::available() {
                for blocks in [1, 2, 3, v_dim] {
                    assert_eq!(case.run(isa, blocks), first, "{v_dim} × {k_dim}, {isa}, parts of {blocks}");
                }
            }
        }
    }
}

#[test]
fn errors_do_not_grow_over_a_long_run() {
    let mut rng = Rng(42);
    for per_channel in [false, true] {
        let mut case = Case::random(&mut rng, 64, 16, per_channel, 3000);
        // Nearly nothing is forgotten.
        case.a_log = -6.0;
        case.check(&case.run(Isa::best(), 1));
    }
}

#[test]
fn a_nan_reaches_the_output_and_stays() {
    let mut case = Case::random(&mut Rng(43), 32, 20, false, 6);
    case.v[2 * 20 + 19] = f32::NAN;
    for isa in Isa::available() {
        for (i, y) in case.run(isa, 1).iter().enumerate() {
            assert_eq!(y.is_nan(), i % 20 == 19 && i / 20 >= 2, "{isa}: {i}");
        }
    }
    for of_decay in [true, false] {
        let mut case = Case::random(&mut Rng(44), 32, 20, false, 3);
        let input = if of_decay { &mut case.decay } else { &mut case.beta };
        input[1] = f32::NAN;
        for isa in Isa::available() {
            assert!(case.run(isa, 2)[20..].iter().all(|y| y.is_nan()), "{isa}");
        }
    }
}
