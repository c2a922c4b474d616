//! What fills tensors: SplitMix64 by position, so any part can be made on its own and scales and biases of a
//! group agree.

use amoeba_checkpoint::{Format, splitmix64};
use amoeba_kernels::quant::e4m3;

/// How the bytes of a tensor come about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fill {
    /// Random bits under a mask.
    Bits { seed: u64, mask: u64 },
    /// bf16, uniform around `centre`.
    Uniform { seed: u64, centre: f64, half_width: f64 },
    /// bf16, `± centre · (1 ± 1/4)`, sign and jitter by position: scales, and biases by another `centre`.
    Signed { seed: u64, centre: f64 },
    /// Either of two bytes.
    Bytes { seed: u64, either: [u8; 2] },
}

/// Bytes that [`Fill::write`] makes of one random number; every tensor's size is a multiple.
const STEP: usize = 8;

/// Seed offset of scales and biases, beyond any number of codes.
const SCALES: u64 = 1 << 39;

/// E4M3 codes at most 1.875 in magnitude: without the top exponent bit there is no NaN among them.
const E4M3_MASK: u64 = 0xbfbf_bfbf_bfbf_bfbf;
/// Standard deviation of those codes, and of all E2M1 codes.
const E4M3_DEVIATION: f64 = 0.598;
const E2M1_DEVIATION: f64 = 2.926;

/// Numbers or codes, scales and biases of a matrix whose numbers have that standard deviation.
pub(super) fn matrix(format: Format, seed: u64, deviation: f64) -> (Fill, Option<Fill>, Option<Fill>) {
    let bits = |mask| Fill::Bits { seed, mask };
    let scales = seed + SCALES;
    match format {
        Format::Affine { bits: width, .. } => {
            let levels = f64::from(1_u32 << width);
            let scale = deviation / ((levels * levels - 1.0) / 12.0).sqrt();
            let bias = -scale * (levels - 1.0) / 2.0;
            let signed = |centre| Fill::Signed { seed: scales, centre };
            (bits(u64::MAX), Some(signed(scale)), Some(signed(bias)))
        }
        Format::Mxfp4 => (bits(u64::MAX), Some(power(scales, deviation / E2M1_DEVIATION)), None),
        Format::Mxfp8 => (bits(E4M3_MASK), Some(power(scales, deviation / E4M3_DEVIATION)), None),
        Format::Nvfp4 => {
            let wanted = (deviation / E2M1_DEVIATION) as f32;
            let below = (0..0x7e).rev().find(|&code| e4m3(code) <= wanted).unwrap_or(0);
            (bits(u64::MAX), Some(Fill::Bytes { seed: scales, either: [below, below + 1] }), None)
        }
        Format::Dense(_) => {
            let half_width = deviation * 3.0_f64.sqrt();
            (Fill::Uniform { seed, centre: 0.0, half_width }, None, None)
        }
    }
}

/// The two powers of two around `wanted`, as E8M0 bytes.
fn power(seed: u64, wanted: f64) -> Fill {
    let below = (wanted.log2().floor() + 127.0).clamp(0.0, 253.0) as u8;
    Fill::Bytes { seed, either: [below, below + 1] }
}

impl Fill {
    /// Writes the tensor's bytes from `offset` on. `offset` is a multiple of eight.
    pub(super) fn write(self, offset: u64, out: &mut [u8]) {
        let first = offset / STEP as u64;
        let at = |i: usize, seed: u64| splitmix64(seed.wrapping_add(first + i as u64));
        for (i, chunk) in out.chunks_mut(STEP).enumerate() {
            let bytes = match self {
                Fill::Bits { seed, mask } => (at(i, seed) & mask).to_le_bytes(),
                Fill::Uniform { seed, centre, half_width } => four(at(i, seed), |random| {
                    (centre + half_width * (f64::from(random) / 32768.0 - 1.0)) as f32
                }),
                Fill::Signed { seed, centre } => four(at(i, seed), |random| {
                    let size = centre * (0.75 + f64::from(random >> 1) / 65536.0);
                    (if random & 1 == 0 { size } else { -size }) as f32
                }),
                Fill::Bytes { seed, either } => {
                    at(i, seed).to_le_bytes().map(|random| either[usize::from(random & 1)])
                }
            };
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Four bf16 from the four quarters of a random number.
fn four(random: u64, value: impl Fn(u16) -> f32) -> [u8; STEP] {
    let mut bytes = [0; STEP];
    for (i, out) in bytes.chunks_exact_mut(2).enumerate() {
        out.copy_from_slice(&bf16(value((random >> (16 * i)) as u16)).to_le_bytes());
    }
    bytes
}

/// The nearest bf16 to a finite number.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_join() {
        let fills = [
            Fill::Bits { seed: 3, mask: u64::MAX },
            Fill::Uniform { seed: 3, centre: 1.0, half_width: 0.5 },
            Fill::Signed { seed: 3, centre: 0.1 },
            Fill::Bytes { seed: 3, either: [4, 5] },
        ];
        for fill in fills {
            let (mut whole, mut parts) = ([0; 100], [0; 100]);
            fill.write(0, &mut whole);
            let (head, tail) = parts.split_at_mut(48);
            fill.write(0, head);
            fill.write(48, tail);
            assert_eq!(whole, parts, "{fill:?}");
        }
    }

    #[test]
    fn deviations_are_those_of_the_codes() {
        let rms = |values: Vec<f64>| (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        let e2m1 = rms((0..16).map(|c| f64::from(amoeba_kernels::quant::e2m1(c))).collect());
        let e4m3 = rms((0..=0xbf).filter(|c| c & 0x40 == 0).map(|c| f64::from(e4m3(c))).collect());
        assert!((e2m1 - E2M1_DEVIATION).abs() < 1e-3, "{e2m1}");
        assert!((e4m3 - E4M3_DEVIATION).abs() < 1e-3, "{e4m3}");
    }
}
