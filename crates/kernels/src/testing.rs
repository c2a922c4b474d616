//! Random inputs for cases and benches: a small counter-based generator and matrices of any format. Ops to
//! try.

mod ops;

pub use ops::{attention, delta_net, rms_norm, router_rule, ssm};

/// What cases of the products on tiles reach into.
pub mod tiles {
    pub use crate::linear::codec::{Codes, E2m1, Int};
    pub use crate::linear::tiles::{run, tile_cols};
    pub use crate::simd::tiles::emulated::Emulated;
}

use amoeba_checkpoint::{Float, Format, Matrix};
use amoeba_plan::Activation;
use half::{bf16, f16};

use crate::linear::Digits;
use crate::quant::element;

/// SplitMix64 (Steele et al. 2014): tiny, seedable, the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// Next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub fn uniform(&mut self) -> f32 {
        ((self.next_u64() >> 40) as f32 / (1 << 23) as f32) - 1.0
    }

    /// Uniform below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }

    /// `n` values in -1..1.
    pub fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform()).collect()
    }
}

/// A stored matrix that owns its bytes.
#[derive(Clone, Debug)]
pub struct OwnedMatrix {
    rows: usize,
    cols: usize,
    format: Format,
    weight: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl OwnedMatrix {
    /// Random codes, scales of either sign, values of order one.
    pub fn random(format: Format, rows: usize, cols: usize, rng: &mut Rng) -> OwnedMatrix {
        let groups = if format.is_quantised() { rows * cols / format.group() } else { 0 };
        let mut weight: Vec<u8> = (0..rows * format.row_bytes(cols)).map(|_| rng.next_u64() as u8).collect();
        let floats = |float: Float, n: usize, scale: f32, rng: &mut Rng| -> Vec<u8> {
            (0..n).flat_map(|_| float_bytes(float, rng.uniform() * scale)).collect()
        };
        let (mut scales, mut biases) = (Vec::new(), Vec::new());
        match format {
            Format::Dense(float) => weight = floats(float, rows * cols, 1.0, rng),
            Format::Affine { bits, scale, .. } => {
                scales = floats(scale, groups, 2.0 / (1 << bits) as f32, rng);
                biases = floats(scale, groups, 1.0, rng);
            }
            Format::Mxfp4 | Format::Mxfp8 => scales = (0..groups).map(|_| 120 + rng.below(6) as u8).collect(),
            Format::Nvfp4 => scales = (0..groups).map(|_| rng.below(0x40) as u8).collect(),
        }
        OwnedMatrix { rows, cols, format, weight, scales, biases }
    }

    /// Random matrices of one shape.
    pub fn stack(format: Format, n: usize, rows: usize, cols: usize, rng: &mut Rng) -> Vec<OwnedMatrix> {
        (0..n).map(|_| OwnedMatrix::random(format, rows, cols, rng)).collect()
    }

    /// The view kernels take.
    pub fn view(&self) -> Matrix<'_> {
        Matrix {
            rows: self.rows,
            cols: self.cols,
            format: self.format,
            weight: &self.weight,
            scales: &self.scales,
            biases: &self.biases,
        }
    }
}

/// The views of some matrices.
pub fn views(matrices: &[OwnedMatrix]) -> Vec<Matrix<'_>> {
    matrices.iter().map(OwnedMatrix::view).collect()
}

/// Normalised RMS error of `y` against `truth`.
pub fn rms(y: &[f32], truth: &[f32]) -> f64 {
    let error: f64 = y.iter().zip(truth).map(|(y, t)| f64::from(y - t).powi(2)).sum();
    let size: f64 = truth.iter().map(|&t| f64::from(t).powi(2)).sum();
    (error / size.max(1e-30)).sqrt()
}

fn float_bytes(float: Float, x: f32) -> Vec<u8> {
    match float {
        Float::F32 => x.to_le_bytes().to_vec(),
        Float::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        Float::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
    }
}

/// One activation of each kind.
pub const ACTIVATIONS: [Activation; 9] = [
    Activation::SwiGlu,
    Activation::GeGlu,
    Activation::ClampedSwiGlu { limit: 7.0, alpha: 1.702 },
    Activation::LimitedSwiGlu { limit: 2.0 },
    Activation::Sigmoid,
    Activation::Product,
    Activation::Relu2,
    Activation::Gelu,
    Activation::Silu,
];

/// Every format the checkpoint reader accepts (affine with each scale type once).
pub fn formats() -> Vec<Format> {
    let mut all: Vec<Format> = [Float::F32, Float::F16, Float::BF16].map(Format::Dense).to_vec();
    for bits in [2, 3, 4, 5, 6, 8] {
        for (group, scale) in [(32, Float::F32), (64, Float::BF16), (128, Float::F16)] {
            all.push(Format::Affine { bits, group, scale });
        }
    }
    all.extend([Format::Mxfp4, Format::Mxfp8, Format::Nvfp4]);
    all
}

/// [`error_bound`](crate::linear::error_bound) of the product of one row of a matrix with x.
pub fn allowed(row: &Matrix<'_>, digits: Digits, x: &[f32]) -> f64 {
    // A biased code may be far larger than the weight it stands for.
    let largest = |w: f64| if row.format.has_biases() { 32.0 } else { w.max(1e-3) };
    let (mut magnitude, mut spread) = (0.0, 0.0);
    let group = row.format.group().max(1);
    for (g, x) in x.chunks(group).enumerate() {
        let most = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (i, x) in x.iter().enumerate() {
            let w = element(row, g * group + i).abs();
            magnitude += f64::from(x.abs()) * largest(w);
            spread += f64::from(most) * w;
        }
    }
    crate::linear::error_bound(row.format, digits, row.cols, magnitude, spread)
}

/// Logits of many shapes, finite or -∞: what `sample` is tried with.
pub fn logits(vocab: usize, rng: &mut Rng) -> Vec<(&'static str, Vec<f32>)> {
    let mut of = |f: &mut dyn FnMut(&mut Rng) -> f32| (0..vocab).map(|_| f(rng)).collect::<Vec<f32>>();
    let mut all = vec![
        ("flat", of(&mut Rng::uniform)),
        // Three uniform numbers make something like a bell.
        ("bell", of(&mut |rng| 5.0 * (rng.uniform() + rng.uniform() + rng.uniform()))),
        ("steep", of(&mut |rng| 60.0 * rng.uniform())),
        ("ties", of(&mut |rng| rng.below(5) as f32)),
        ("equal", vec![-3.5; vocab]),
        ("zeros", of(&mut |rng| if rng.below(2) == 0 { 0.0 } else { -0.0 })),
        ("masked", of(&mut |rng| if rng.below(3) == 0 { rng.uniform() } else { f32::NEG_INFINITY })),
        ("huge", of(&mut |rng| f32::MAX * rng.uniform())),
        ("tiny", of(&mut |rng| f32::MIN_POSITIVE * rng.uniform())),
        ("close", of(&mut |rng| 20.0 + rng.below(3) as f32 * f32::EPSILON * 16.0)),
    ];
    let mut peak = vec![-1000.0; vocab];
    peak[vocab / 2] = 1000.0;
    all.push(("peak", peak));
    all
}
