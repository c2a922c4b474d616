//! Where keys and values of one head lie: keys of sixteen positions side by side, so that scores need no
//! horizontal sums; values one position after another, padded to sixteen.

use half::f16;

use crate::simd::{LANES, Simd};

/// Elements of `positions` keys of a head.
pub fn key_len(positions: usize, head_dim: usize) -> usize {
    positions.next_multiple_of(LANES) * head_dim
}

/// Elements of `positions` values of a head.
pub fn value_len(positions: usize, v_dim: usize) -> usize {
    positions * v_dim.next_multiple_of(LANES)
}

/// What a cache stores.
pub trait Element: Copy {
    /// Nearest stored value.
    fn of(x: f32) -> Self;
    /// Sixteen of them as f32.
    fn load<S: Simd>(simd: S, x: &[Self; LANES]) -> S::F;
}

impl Element for f32 {
    fn of(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, x: &[f32; LANES]) -> S::F {
        simd.load(x)
    }
}

/// IEEE half precision, little-endian.
pub type Half = [u8; 2];

impl Element for Half {
    fn of(x: f32) -> Half {
        f16::from_f32(x).to_le_bytes()
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, x: &[Half; LANES]) -> S::F {
        simd.f16(x.as_flattened().first_chunk().expect("sixteen halves"))
    }
}

/// Keys and values of one head, from position 0.
#[derive(Clone, Copy, Debug)]
pub enum Head<'a> {
    /// Exact.
    F32(&'a [f32], &'a [f32]),
    /// Rounded to 11 bits: half the bytes.
    F16(&'a [Half], &'a [Half]),
}

impl<'a> Head<'a> {
    /// Positions from `first` on, a multiple of sixteen.
    pub fn from(self, first: usize, shape: &super::Shape) -> Head<'a> {
        let (k, v) = (key_len(first, shape.head_dim), value_len(first, shape.v_dim));
        match self {
            Head::F32(keys, values) => Head::F32(&keys[k..], &values[v..]),
            Head::F16(keys, values) => Head::F16(&keys[k..], &values[v..]),
        }
    }
}

/// First element of the key of a position; its others follow [`KEY_STRIDE`] apart.
pub fn key_at(position: usize, head_dim: usize) -> usize {
    position / LANES * LANES * head_dim + position % LANES
}

/// Elements from one dimension of a key to the next.
pub const KEY_STRIDE: usize = LANES;

/// First element of the value of a position; its others follow.
pub fn value_at(position: usize, v_dim: usize) -> usize {
    position * v_dim.next_multiple_of(LANES)
}
