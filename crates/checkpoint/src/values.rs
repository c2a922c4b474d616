//! Finiteness of stored numbers, for `--check-tensors`.

use crate::{DType, Error, TensorIndex, TensorInfo};
use half::{bf16, f16};

/// Elements looked at before asking whether one of them was bad: long enough for the test to run in vectors.
const BLOCK: usize = 4096;

/// Looks for the first number of a tensor that cannot be used.
pub(crate) fn check(index: &TensorIndex, tensor: &TensorInfo<'_>, bytes: &[u8]) -> Result<(), Error> {
    // An affine weight is scale·code + bias with codes up to 255; a finite scale may still overflow there.
    let limit = match tensor.name.rsplit('.').next() {
        Some("scales") => f32::MAX / 512.0,
        Some("biases") => f32::MAX / 2.0,
        _ => f32::MAX,
    };
    let usable = |v: f32| v.abs() <= limit; // false for NaN
    let bad = match tensor.dtype {
        DType::F32 => first(bytes.as_chunks::<4>().0, |b| usable(f32::from_le_bytes(*b))),
        // Without the sign, floats order as their bits do.
        DType::BF16 => {
            let most = (limit.to_bits() >> 16) as u16;
            first(bytes.as_chunks::<2>().0, |b| u16::from_le_bytes(*b) & 0x7fff <= most)
        }
        // Any finite f16 is far below every limit.
        DType::F16 => first(bytes.as_chunks::<2>().0, |b| f16::from_le_bytes(*b).is_finite()),
        DType::F64 => first(bytes.as_chunks::<8>().0, |b| f64::from_le_bytes(*b).is_finite()),
        DType::U8 => match scale_nan(index, tensor) {
            Some(Nan::Power) => first(bytes, |b| *b != 0xff),
            Some(Nan::E4M3) => first(bytes, |b| b & 0x7f != 0x7f),
            None => None,
        },
        _ => None,
    };
    let Some(at) = bad else { return Ok(()) };
    let width = tensor.dtype.bits() / 8;
    let element = &bytes[at * width..(at + 1) * width];
    let value = match (tensor.dtype, element) {
        (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).to_string(),
        (DType::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).to_string(),
        (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_string(),
        _ => format!("{element:02x?}"),
    };
    let what =
        format!("element {at} of {:?} is {value}, expected a finite number below {limit:e}", tensor.shape);
    Err(Error::corrupt(index.place(tensor), what))
}

/// Which byte of a `U8` scale stands for NaN.
enum Nan {
    Power,
    E4M3,
}

/// The scale type of a `U8` tensor, from the width ratio to its codes: per scale, nvfp4 has 2 words of codes,
/// mxfp4 has 4 and mxfp8 has 8.
fn scale_nan(index: &TensorIndex, scales: &TensorInfo<'_>) -> Option<Nan> {
    let weight = index.get(&format!("{}.weight", scales.name.strip_suffix(".scales")?))?;
    let (words, groups) = (*weight.shape.last()?, *scales.shape.last()?);
    match words.checked_div(groups)? {
        2 => Some(Nan::E4M3),
        4 | 8 => Some(Nan::Power),
        _ => None,
    }
}

/// Position of the first item that is not `good`; whole blocks are tested without branching.
fn first<T>(items: &[T], good: impl Fn(&T) -> bool) -> Option<usize> {
    let block =
        items.chunks(BLOCK).position(|block| !block.iter().fold(true, |all, item| all & good(item)))?;
    let start = block * BLOCK;
    items[start..].iter().position(|item| !good(item)).map(|at| start + at)
}
