//! Exact values of stored numbers: the meaning of every format, one element at a time.

use amoeba_checkpoint::{Float, Format, Matrix};
use half::{bf16, f16};

/// Magnitudes of E2M1 (OCP microscaling formats, 2023).
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// Writes row `row` of `matrix`, exact in f32 up to the one rounding of `scale·code + bias`.
///
/// # Panics
/// If the row does not exist or `out` is not `matrix.cols` long (a caller's bug).
pub fn dequantise_row(matrix: &Matrix<'_>, row: usize, out: &mut [f32]) {
    assert_eq!(out.len(), matrix.cols, "one row");
    let one = matrix.rows(row, 1);
    for (col, value) in out.iter_mut().enumerate() {
        *value = element(&one, col) as f32;
    }
}

/// Element `col` of a one-row matrix in f64, where every format's product and sum is exact.
pub fn element(row: &Matrix<'_>, col: usize) -> f64 {
    let group = col / row.format.group();
    match row.format {
        Format::Dense(float) => f64::from(read_float(row.weight, col, float)),
        Format::Affine { bits, scale, .. } => {
            let code = read_code(row.weight, col, usize::from(bits));
            let scale_of = |bytes| f64::from(read_float(bytes, group, scale));
            scale_of(row.scales) * f64::from(code) + scale_of(row.biases)
        }
        Format::Mxfp4 => e8m0(row.scales[group]) * f64::from(e2m1(read_code(row.weight, col, 4))),
        Format::Mxfp8 => e8m0(row.scales[group]) * f64::from(e4m3(row.weight[col])),
        Format::Nvfp4 => f64::from(e4m3(row.scales[group])) * f64::from(e2m1(read_code(row.weight, col, 4))),
    }
}

/// Code `index` of a little-endian bit stream of `bits`-wide codes.
pub fn read_code(stream: &[u8], index: usize, bits: usize) -> u32 {
    let (first, shift) = (index * bits / 8, index * bits % 8);
    let low = u32::from(stream[first]);
    let high = if shift + bits > 8 { u32::from(stream[first + 1]) } else { 0 };
    ((low | high << 8) >> shift) & ((1 << bits) - 1)
}

/// Float `index` of little-endian `bytes`.
pub fn read_float(bytes: &[u8], index: usize, float: Float) -> f32 {
    let at = index * float.bytes();
    match float {
        Float::F32 => f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]),
        Float::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
        Float::BF16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
    }
}

/// E2M1 code to value.
pub fn e2m1(code: u32) -> f32 {
    let magnitude = E2M1[code as usize & 7];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// E4M3 byte to value, as MLX reads it: the bits moved into a half and scaled, so 0x7f is 480 rather than
/// NaN.
pub fn e4m3(byte: u8) -> f32 {
    let byte = u16::from(byte);
    f16::from_bits((byte & 0x80) << 8 | (byte & 0x7f) << 7).to_f32() * 256.0
}

/// E8M0 byte to `2^(byte - 127)`.
pub fn e8m0(byte: u8) -> f64 {
    (f64::from(byte) - 127.0).exp2()
}
