//! [`Simd`] in plain Rust: the meaning of every lane operation, and the fallback.
//!
//! Operations without a vector instruction on every machine are never inlined: inlined, a kernel of them
//! would be sixteen times as long, and all of them a quarter of this crate's machine code.

use half::{bf16, f16};

use super::{LANES, Simd};

/// Plain Rust lanes; always available.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    type F = [f32; LANES];
    type U = [u32; LANES];
    type I = [i32; LANES];
    const COMPACT: bool = true;

    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        *out = v;
    }
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(never)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(never)]
    fn round(self, a: Self::F) -> Self::F {
        a.map(f32::round_ties_even)
    }
    #[inline(never)]
    fn exp2_integer(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    fn words(self, x: &[u8; 64]) -> Self::U {
        std::array::from_fn(|i| u32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }
    fn field(self, u: Self::U, shift: u32, mask: u32) -> Self::F {
        u.map(|u| ((u >> shift) & mask) as f32)
    }
    fn field2(self, u: (Self::U, u32, u32), v: (Self::U, u32, u32), up: u32) -> Self::F {
        std::array::from_fn(|i| (((u.0[i] >> u.1) & u.2) | (((v.0[i] >> v.1) & v.2) << up)) as f32)
    }
    fn bytes_field(self, u: Self::U, shift: u32, mask: u8) -> Self::U {
        u.map(|u| (u >> shift) & (u32::from(mask) * 0x0101_0101))
    }
    fn bytes_join(self, u: Self::U, v: Self::U, up: u32) -> Self::U {
        std::array::from_fn(|i| u[i] | v[i] << up)
    }
    #[inline(never)]
    fn bytes_e2m1(self, u: Self::U) -> Self::U {
        u.map(|u| {
            u32::from_le_bytes(u.to_le_bytes().map(|code| (E2M1[code as usize & 15] * 2.0 + 12.0) as u8))
        })
    }
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        *x
    }
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(never)]
    fn dot4(self, acc: Self::I, u: Self::U, x: i32) -> Self::I {
        let x = x.to_le_bytes().map(|x| i32::from(x as i8));
        std::array::from_fn(|i| {
            let u = u[i].to_le_bytes().map(i32::from);
            acc[i] + u[0] * x[0] + u[1] * x[1] + u[2] * x[2] + u[3] * x[3]
        })
    }
    #[inline(never)]
    fn to_int(self, a: Self::F) -> Self::I {
        a.map(|a| a.round_ties_even() as i32)
    }
    fn low_digit(self, a: Self::I) -> Self::I {
        a.map(|a| i32::from(a as i8))
    }
    fn next_digits(self, a: Self::I, low: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_sub(low[i]) >> 8)
    }
    fn narrow(self, a: Self::I) -> [u8; LANES] {
        a.map(|a| a as u8)
    }
    fn sum_i(self, a: Self::I) -> i32 {
        a.iter().fold(0, |sum, a| sum.wrapping_add(*a))
    }
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I {
        a.map(|a| a.wrapping_shl(N as u32))
    }
    fn float(self, i: Self::I) -> Self::F {
        i.map(|i| i as f32)
    }
    fn store_u(self, u: Self::U, out: &mut [u8; 64]) {
        for (out, u) in out.chunks_exact_mut(4).zip(u) {
            out.copy_from_slice(&u.to_le_bytes());
        }
    }
    #[inline(never)]
    fn e2m1(self, u: Self::U, shift: u32) -> Self::F {
        u.map(|u| E2M1[(u >> shift) as usize & 15])
    }
    #[inline(never)]
    fn e4m3(self, u: Self::U, shift: u32) -> Self::F {
        u.map(|u| {
            let byte = (u >> shift) as u16 & 0xff;
            f16::from_bits((byte & 0x80) << 8 | (byte & 0x7f) << 7).to_f32()
        })
    }
    fn bytes(self, x: &[u8; LANES]) -> Self::U {
        x.map(u32::from)
    }
    fn e8m0(self, u: Self::U) -> Self::F {
        // 2^-127 is subnormal: the maximum supplies its bits where the exponent field is zero.
        u.map(|u| f32::from_bits((u << 23).max(0x0040_0000)))
    }
    fn bf16(self, x: &[u8; 32]) -> Self::F {
        std::array::from_fn(|i| bf16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }
    #[inline(never)]
    fn f16(self, x: &[u8; 32]) -> Self::F {
        std::array::from_fn(|i| f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }
}
