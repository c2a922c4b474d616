//! [`Simd`] on Arm NEON: four registers a vector. Compiled, never yet run on hardware by this project's tests.

use std::arch::aarch64::*;

use half::f16;

use super::{LANES, Scalar, Simd};

/// Proof that the machine has NEON (every aarch64 has).
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token.
    #[inline]
    pub fn detect() -> Option<Neon> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

type F = [float32x4_t; 4];
type U = [uint32x4_t; 4];

/// Four quarters of an expression in `$i`. SAFETY of all uses: NEON is part of aarch64, and every pointer comes
/// from a reference to an array of the full width.
macro_rules! quarters {
    ($i:ident => $e:expr) => {
        // SAFETY: see above.
        std::array::from_fn(
            #[inline(always)]
            |$i| unsafe { $e },
        )
    };
}

#[inline(always)]
fn bits(u: uint32x4_t, shift: u32, mask: u32) -> uint32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe { vandq_u32(vshlq_u32(u, vdupq_n_s32(-(shift as i32))), vdupq_n_u32(mask)) }
}

impl Simd for Neon {
    type F = F;
    type U = U;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        quarters!(_i => vdupq_n_f32(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        quarters!(i => vld1q_f32(x.as_ptr().add(4 * i)))
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        for (i, quarter) in v.into_iter().enumerate() {
            // SAFETY: `out` holds sixteen floats, `i` is below four.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), quarter) }
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        quarters!(i => vaddq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        quarters!(i => vsubq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        quarters!(i => vmulq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        quarters!(i => vdivq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        quarters!(i => vfmaq_f32(c[i], a[i], b[i]))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        quarters!(i => vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        quarters!(i => vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        quarters!(i => vrndnq_f32(a[i]))
    }
    #[inline(always)]
    fn exp2_integer(self, n: F) -> F {
        quarters!(i => {
            let biased = vaddq_s32(vcvtq_s32_f32(n[i]), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn words(self, x: &[u8; 64]) -> U {
        quarters!(i => vreinterpretq_u32_u8(vld1q_u8(x.as_ptr().add(16 * i))))
    }
    #[inline(always)]
    fn field(self, u: U, shift: u32, mask: u32) -> F {
        quarters!(i => vcvtq_f32_u32(bits(u[i], shift, mask)))
    }
    #[inline(always)]
    fn field2(self, u: (U, u32, u32), v: (U, u32, u32), up: u32) -> F {
        quarters!(i => {
            let high = vshlq_u32(bits(v.0[i], v.1, v.2), vdupq_n_s32(up as i32));
            vcvtq_f32_u32(vorrq_u32(bits(u.0[i], u.1, u.2), high))
        })
    }
    #[inline(always)]
    fn e2m1(self, u: U, shift: u32) -> F {
        let mut words = [0u32; LANES];
        for (i, quarter) in u.into_iter().enumerate() {
            // SAFETY: `words` holds sixteen words, `i` is below four.
            unsafe { vst1q_u32(words.as_mut_ptr().add(4 * i), quarter) }
        }
        self.load(&Scalar.e2m1(words, shift))
    }
    #[inline(always)]
    fn e4m3(self, u: U, shift: u32) -> F {
        let mut words = [0u32; LANES];
        for (i, quarter) in u.into_iter().enumerate() {
            // SAFETY: `words` holds sixteen words, `i` is below four.
            unsafe { vst1q_u32(words.as_mut_ptr().add(4 * i), quarter) }
        }
        self.load(&Scalar.e4m3(words, shift))
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> U {
        let words = x.map(u32::from);
        quarters!(i => vld1q_u32(words.as_ptr().add(4 * i)))
    }
    #[inline(always)]
    fn e8m0(self, u: U) -> F {
        // 2^-127 is subnormal: the maximum supplies its bits where the exponent field is zero.
        quarters!(i => vreinterpretq_f32_u32(vmaxq_u32(vshlq_n_u32::<23>(u[i]), vdupq_n_u32(0x0040_0000))))
    }
    #[inline(always)]
    fn bf16(self, x: &[u8; 32]) -> F {
        quarters!(i => {
            let half = vreinterpret_u16_u8(vld1_u8(x.as_ptr().add(8 * i)));
            vreinterpretq_f32_u32(vshll_n_u16::<16>(half))
        })
    }
    #[inline(always)]
    fn f16(self, x: &[u8; 32]) -> F {
        self.load(&std::array::from_fn(|i| f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32()))
    }
}
