//! Cases of `ssm`: both kinds, heads and states that fill no vector, groups, bounds of δ, long runs, NaN.

use super::{Channels, Shape, Token, reference, step};
use crate::simd::{Isa, LANES};
use crate::testing::Rng;

/// Inputs of some positions of a layer.
struct Case {
    shape: Shape,
    per_state: bool,
    a_log: Vec<f32>,
    d: Vec<f32>,
    dt_bias: Option<Vec<f32>>,
    dt_limit: (f32, f32),
    x: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    dt: Vec<f32>,
    positions: usize,
}

impl Case {
    fn random(rng: &mut Rng, shape: Shape, per_state: bool, positions: usize) -> Case {
        let mut wide = |n: usize, by: f32| rng.vector(n).iter().map(|x| x * by).collect::<Vec<f32>>();
        let rates = if per_state { shape.heads * shape.state } else { shape.heads };
        Case {
            a_log: wide(rates, 2.5),
            d: wide(shape.heads, 1.0),
            dt_bias: (!shape.heads_side_by_side()).then(|| wide(shape.heads, 3.0)),
            dt_limit: if per_state { (0.0, f32::INFINITY) } else { (0.001, 2.0) },
            x: wide(positions * shape.heads * shape.head_dim, 3.0),
            b: wide(positions * shape.groups * shape.state, 2.0),
            c: wide(positions * shape.groups * shape.state, 2.0),
            dt: wide(positions * shape.heads, 6.0),
            shape,
            per_state,
            positions,
        }
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// Outputs; the channels of a band in parts of `blocks` blocks, each part over all positions at once.
    fn run(&self, isa: Isa, blocks: usize) -> Vec<f32> {
        let (shape, width) = (self.shape, self.shape.width());
        let rates = shape.rates(&self.a_log, self.per_state);
        let mut out = vec![0.0; self.x.len()];
        for band in 0..shape.bands() {
            for first in (0..width).step_by(blocks * LANES) {
                let end = (first + blocks * LANES).min(width);
                let mut state = vec![0.0; shape.state_len(end - first)];
                // Numbers of heads: of these channels, or of the one head.
                let heads = if shape.heads_side_by_side() {
                    band * width + first..band * width + end
                } else {
                    band..band + 1
                };
                let rates = match (self.per_state, shape.heads_side_by_side()) {
                    (true, true) => &rates[band * shape.state_len(width) + shape.state_len(first)..],
                    (true, false) => &rates[band * shape.state..][..shape.state],
                    (false, _) => &rates[heads.clone()],
                };
                let channels = Channels {
                    rates,
                    per_state: self.per_state,
                    heads_side_by_side: shape.heads_side_by_side(),
                    d: &self.d[heads.clone()],
                    dt_bias: self.dt_bias.as_ref().map(|bias| &bias[heads.clone()]),
                    dt_limit: self.dt_limit,
                };
                for t in 0..self.positions {
                    let at = t * self.width() + band * width;
                    let group = (t * shape.groups + band / shape.bands_per_group()) * shape.state;
                    let token = Token {
                        x: &self.x[at + first..at + end],
                        b: &self.b[group..][..shape.state],
                        c: &self.c[group..][..shape.state],
                        dt: &self.dt[t * shape.heads..][heads.clone()],
                    };
                    step(isa, &channels, &token, &mut state, &mut out[at + first..at + end]);
                }
            }
        }
        out
    }

    /// Holds outputs against the reference by the bound of the contract.
    fn check(&self, found: &[f32]) {
        let (shape, u) = (self.shape, 2f64.powi(-24));
        let (dim, columns) = (shape.head_dim, shape.state);
        let mut used = 0.0f64;
        for h in 0..shape.heads {
            let rates = self.a_log.len() / shape.heads;
            let head = reference::Head {
                a_log: &self.a_log[h * rates..][..rates],
                d: self.d[h],
                dt_bias: self.dt_bias.as_ref().map_or(0.0, |bias| bias[h]),
                dt_limit: self.dt_limit,
            };
            let (mut state, mut errors) = (vec![0.0f64; dim * columns], vec![0.0f64; dim * columns]);
            let mut truth = vec![0.0; dim];
            for t in 0..self.positions {
                let at = t * self.width() + h * dim;
                let group = (t * shape.groups + h / (shape.heads / shape.groups)) * columns;
                let (b, c) = (&self.b[group..][..columns], &self.c[group..][..columns]);
                let token = Token { x: &self.x[at..][..dim], b, c, dt: &self.dt[t * shape.heads + h..][..1] };
                let delta = head.delta(token.dt[0]);
                for (i, (error, s)) in errors.iter_mut().zip(&state).enumerate() {
                    let moved = delta * f64::from(token.x[i / columns] * b[i % columns]).abs();
                    *error = *error * head.decay(delta, i % columns) + u * (16.0 * s.abs() + 20.0 * moved);
                }
                reference::step(&head, &token, &mut state, &mut truth);
                for p in 0..dim {
                    let of = |x: &[f64]| {
                        let row = x[p * columns..][..columns].iter().zip(c);
                        row.map(|(x, &c)| (x * f64::from(c)).abs()).sum::<f64>()
                    };
                    let product = f64::from(head.d * token.x[p]).abs();
                    let allowed =
                        of(&errors) + u * ((columns as f64 / 2.0 + 3.0) * of(&state) + 3.0 * product);
                    let error = f64::from((found[at + p] - truth[p]).abs());
                    used = used.max(error / allowed);
                    assert!(error <= allowed, "{shape:?} at {t}: {} vs {}", found[at + p], truth[p]);
                }
            }
        }
        println!("{shape:?}: {:.0} % of what is allowed", used * 100.0);
    }
}

/// Mamba-2 with and without groups, Mamba-1, and what lies between.
fn shapes() -> [(Shape, bool); 8] {
    let of = |heads, head_dim, groups, state| Shape { heads, head_dim, groups, state };
    [
        (of(3, 64, 1, 128), false),
        (of(8, 16, 4, 16), false),
        (of(4, 24, 2, 7), false),
        (of(2, 5, 1, 1), false),
        (of(100, 1, 1, 16), true),
        (of(40, 1, 2, 16), true),
        (of(4, 20, 2, 6), true),
        (of(36, 1, 2, 5), false),
    ]
}

#[test]
fn the_recurrence_follows_the_reference_on_every_instruction_set() {
    let mut rng = Rng(51);
    for (shape, per_state) in shapes() {
        let case = Case::random(&mut rng, shape, per_state, 40);
        let first = case.run(Isa::Scalar, shape.width());
        case.check(&first);
        for isa in Isa::available() {
            for blocks in [1, 2, 3, shape.width()] {
                assert_eq!(case.run(isa, blocks), first, "{shape:?}, {isa}, parts of {blocks}");
            }
        }
    }
}

#[test]
fn errors_do_not_grow_over_a_long_run() {
    let mut rng = Rng(52);
    for (shape, per_state) in
        [(Shape { heads: 2, head_dim: 16, groups: 1, state: 32 }, false), (shapes()[5].0, true)]
    {
        let mut case = Case::random(&mut rng, shape, per_state, 2000);
        // Nearly nothing is forgotten.
        case.a_log.fill(-6.0);
        case.check(&case.run(Isa::best(), 1));
    }
}

#[test]
fn a_nan_reaches_the_output_and_stays() {
    for (shape, per_state) in shapes() {
        let mut case = Case::random(&mut Rng(53), shape, per_state, 4);
        let width = case.width();
        case.x[width + 1] = f32::NAN;
        case.dt[2 * shape.heads] = f32::NAN;
        for isa in Isa::available() {
            for (i, y) in case.run(isa, 1).iter().enumerate() {
                let (t, channel) = (i / width, i % width);
                let expected = (t >= 1 && channel == 1) || (t >= 2 && channel < shape.head_dim);
                assert_eq!(y.is_nan(), expected, "{shape:?}, {isa}: position {t}, channel {channel}");
            }
        }
    }
}
