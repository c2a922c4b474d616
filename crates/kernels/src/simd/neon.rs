//! [`Simd`] on NEON: four registers a vector.
//!
//! NEON belongs to every aarch64 target, so kernels need no attribute to be compiled for it. Only the
//! instruction of [`Simd::dot4`] differs between machines, and it is written in assembly that names its own
//! extension.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{LANES, Simd};

const _: () = assert!(cfg!(target_endian = "little"), "words of four bytes are loaded as they lie in memory");

/// How [`Simd::dot4`] is computed. A value is a proof that the machine can.
pub trait Dot: Copy {
    /// `acc + Σ u_b · x_b` over the four bytes of a lane; every lane of `x` is the same.
    fn dot4(self, acc: I, u: U, x: int32x4_t) -> I;
}

/// NEON alone: products of 16 bits, added in pairs.
#[derive(Clone, Copy, Debug)]
pub struct Pairs(());

/// The extension DotProd: SDOT.
#[derive(Clone, Copy, Debug)]
pub struct Sdot(());

/// The extension I8MM: USDOT.
#[derive(Clone, Copy, Debug)]
pub struct Usdot(());

/// Proof that the machine has NEON and `D`.
#[derive(Clone, Copy, Debug)]
pub struct Neon<D>(D);

impl Neon<Pairs> {
    /// The token, if the machine has the features.
    #[inline]
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Neon(Pairs(())))
    }
}

impl Neon<Sdot> {
    /// The token, if the machine has the features.
    #[inline]
    pub fn detect() -> Option<Self> {
        let found = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod");
        found.then_some(Neon(Sdot(())))
    }
}

impl Neon<Usdot> {
    /// The token, if the machine has the features.
    #[inline]
    pub fn detect() -> Option<Self> {
        let found = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("i8mm");
        found.then_some(Neon(Usdot(())))
    }
}

type F = [float32x4_t; 4];
type U = [uint32x4_t; 4];
type I = [int32x4_t; 4];

/// One intrinsic expression. SAFETY of all uses: every aarch64 target has NEON, and none takes a pointer.
macro_rules! neon {
    ($e:expr) => {
        // SAFETY: see above; NEON is part of the target.
        unsafe { $e }
    };
}

/// The same bits as another type: how vectors are loaded and stored. (`vld1q` and its like are pointer
/// copies, each with a check in debug builds, which makes kernels several times as long to compile.)
macro_rules! cast {
    ($e:expr, $from:ty => $to:ty) => {
        // SAFETY: arrays of numbers and registers of numbers of the same total size; any bits are a value.
        unsafe { std::mem::transmute::<$from, $to>($e) }
    };
}

/// The four quarters of an expression in `$i`.
macro_rules! four {
    ($i:ident => $e:expr) => {
        neon!([
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
            {
                let $i = 2;
                $e
            },
            {
                let $i = 3;
                $e
            }
        ])
    };
}

impl Dot for Pairs {
    #[inline(always)]
    fn dot4(self, acc: I, u: U, x: int32x4_t) -> I {
        let x = neon!(vreinterpretq_s16_s32(x));
        let (even, odd) = neon!((vshrq_n_s16::<8>(vshlq_n_s16::<8>(x)), vshrq_n_s16::<8>(x)));
        four!(i => {
            let u = vreinterpretq_u16_u32(u[i]);
            let low = vreinterpretq_s16_u16(vandq_u16(u, vdupq_n_u16(0xff)));
            let high = vreinterpretq_s16_u16(vshrq_n_u16::<8>(u));
            // At most 255 · 128 in magnitude: a product fits 16 bits.
            vpadalq_s16(vpadalq_s16(acc[i], vmulq_s16(low, even)), vmulq_s16(high, odd))
        })
    }
}

impl Dot for Sdot {
    #[inline(always)]
    fn dot4(self, acc: I, u: U, x: int32x4_t) -> I {
        // Both factors of SDOT are signed: u - 128 takes part (u with its top bit flipped), and 128 · Σ x is
        // added.
        let flip = neon!(vdupq_n_u32(0x8080_8080));
        let less = self.sdot(neon!(vdupq_n_s32(0)), flip, x);
        four!(i => self.sdot(vsubq_s32(acc[i], less), veorq_u32(u[i], flip), x))
    }
}

impl Sdot {
    /// `acc + Σ u_b · x_b`, both signed.
    #[inline(always)]
    fn sdot(self, mut acc: int32x4_t, u: uint32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: the token proves the extension; only registers are touched.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {u:v}.16b, {x:v}.16b",
                acc = inout(vreg) acc, u = in(vreg) u, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
}

impl Dot for Usdot {
    #[inline(always)]
    fn dot4(self, mut acc: I, u: U, x: int32x4_t) -> I {
        for i in 0..4 {
            // SAFETY: the token proves the extension; only registers are touched.
            unsafe {
                asm!(
                    ".arch_extension i8mm",
                    "usdot {acc:v}.4s, {u:v}.16b, {x:v}.16b",
                    acc = inout(vreg) acc[i], u = in(vreg) u[i], x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
        acc
    }
}

/// `(u >> shift) & mask`.
#[inline(always)]
fn bits(u: uint32x4_t, shift: u32, mask: u32) -> uint32x4_t {
    neon!(vandq_u32(vshlq_u32(u, vdupq_n_s32(-(shift as i32))), vdupq_n_u32(mask)))
}

/// Four f16 to f32.
#[inline(always)]
fn half(x: uint16x4_t) -> float32x4_t {
    neon!(vcvt_f32_f16(vreinterpret_f16_u16(x)))
}

impl<D: Dot> Simd for Neon<D> {
    type F = F;
    type U = U;
    type I = I;

    #[inline(always)]
    fn prefetch<T>(self, data: &[T], ahead: usize) {
        for line in 0..size_of_val(data).div_ceil(64) {
            let line = data.as_ptr().cast::<u8>().wrapping_add(ahead + 64 * line);
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { asm!("prfm pldl1keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags)) }
        }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> F {
        neon!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        cast!(*x, [f32; LANES] => F)
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        *out = cast!(v, F => [f32; LANES]);
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        four!(i => vaddq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        four!(i => vsubq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        four!(i => vmulq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        four!(i => vdivq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        four!(i => vfmaq_f32(c[i], a[i], b[i]))
    }
    // FMIN and FMAX give NaN where an operand is NaN and order the zeros: a choice after a comparison does
    // neither.
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        four!(i => vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        four!(i => vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        four!(i => vrndnq_f32(a[i]))
    }
    #[inline(always)]
    fn exp2_integer(self, n: F) -> F {
        four!(i => {
            let biased = vaddq_s32(vcvtq_s32_f32(n[i]), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn words(self, x: &[u8; 64]) -> U {
        cast!(*x, [u8; 64] => U)
    }
    #[inline(always)]
    fn field(self, u: U, shift: u32, mask: u32) -> F {
        four!(i => vcvtq_f32_u32(bits(u[i], shift, mask)))
    }
    #[inline(always)]
    fn field2(self, u: (U, u32, u32), v: (U, u32, u32), up: u32) -> F {
        four!(i => {
            let high = vshlq_u32(bits(v.0[i], v.1, v.2), vdupq_n_s32(up as i32));
            vcvtq_f32_u32(vorrq_u32(bits(u.0[i], u.1, u.2), high))
        })
    }
    #[inline(always)]
    fn bytes_field(self, u: U, shift: u32, mask: u8) -> U {
        let mask = u32::from_ne_bytes([mask; 4]);
        [bits(u[0], shift, mask), bits(u[1], shift, mask), bits(u[2], shift, mask), bits(u[3], shift, mask)]
    }
    #[inline(always)]
    fn bytes_join(self, u: U, v: U, up: u32) -> U {
        four!(i => vorrq_u32(u[i], vshlq_u32(v[i], vdupq_n_s32(up as i32))))
    }
    #[inline(always)]
    fn bytes_e2m1(self, u: U) -> U {
        const TABLE: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
        let table = cast!(TABLE, [u8; 16] => uint8x16_t);
        four!(i => vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(u[i]))))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        neon!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> I {
        cast!(*x, [i32; LANES] => I)
    }
    #[inline(always)]
    fn add_i(self, a: I, b: I) -> I {
        four!(i => vaddq_s32(a[i], b[i]))
    }
    #[inline(always)]
    fn dot4(self, acc: I, u: U, x: i32) -> I {
        self.0.dot4(acc, u, neon!(vdupq_n_s32(x)))
    }
    #[inline(always)]
    fn to_int(self, a: F) -> I {
        four!(i => vcvtnq_s32_f32(a[i]))
    }
    #[inline(always)]
    fn low_digit(self, a: I) -> I {
        four!(i => vshrq_n_s32::<24>(vshlq_n_s32::<24>(a[i])))
    }
    #[inline(always)]
    fn next_digits(self, a: I, low: I) -> I {
        four!(i => vshrq_n_s32::<8>(vsubq_s32(a[i], low[i])))
    }
    #[inline(always)]
    fn narrow(self, a: I) -> [u8; LANES] {
        // The even bytes of the even bytes of four registers.
        let a = cast!(a, I => [uint8x16_t; 4]);
        let narrow = neon!(vuzp1q_u8(vuzp1q_u8(a[0], a[1]), vuzp1q_u8(a[2], a[3])));
        cast!(narrow, uint8x16_t => [u8; LANES])
    }
    #[inline(always)]
    fn sum_i(self, a: I) -> i32 {
        neon!(vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]))))
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: I) -> I {
        four!(i => vshlq_n_s32::<N>(a[i]))
    }
    #[inline(always)]
    fn float(self, i: I) -> F {
        four!(j => vcvtq_f32_s32(i[j]))
    }
    #[inline(always)]
    fn store_u(self, u: U, out: &mut [u8; 64]) {
        *out = cast!(u, U => [u8; 64]);
    }
    #[inline(always)]
    fn e2m1(self, u: U, shift: u32) -> F {
        // With the exponent's low bit at 23 and the one bit of mantissa at 22, the value is 2^126 too small;
        // code 1 is then subnormal, as it is in E2M1.
        four!(i => {
            let sign = vshlq_n_u32::<28>(bits(u[i], shift, 8));
            let rest = vshlq_n_u32::<22>(bits(u[i], shift, 7));
            let small = vreinterpretq_f32_u32(vorrq_u32(sign, rest));
            vmulq_f32(small, vdupq_n_f32(f32::from_bits((126 + 127) << 23)))
        })
    }
    #[inline(always)]
    fn e4m3(self, u: U, shift: u32) -> F {
        four!(i => {
            let sign = vshlq_n_u32::<8>(bits(u[i], shift, 0x80));
            let rest = vshlq_n_u32::<7>(bits(u[i], shift, 0x7f));
            half(vmovn_u32(vorrq_u32(sign, rest)))
        })
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> U {
        let x = cast!(*x, [u8; LANES] => uint8x16_t);
        neon!({
            let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x));
            [
                vmovl_u16(vget_low_u16(low)),
                vmovl_high_u16(low),
                vmovl_u16(vget_low_u16(high)),
                vmovl_high_u16(high),
            ]
        })
    }
    #[inline(always)]
    fn e8m0(self, u: U) -> F {
        // 2^-127 is subnormal: the maximum supplies its bits where the exponent field is zero.
        four!(i => vreinterpretq_f32_u32(vmaxq_u32(vshlq_n_u32::<23>(u[i]), vdupq_n_u32(0x0040_0000))))
    }
    #[inline(always)]
    fn bf16(self, x: &[u8; 32]) -> F {
        let x = cast!(*x, [u8; 32] => [uint16x4_t; 4]);
        four!(i => vreinterpretq_f32_u32(vshll_n_u16::<16>(x[i])))
    }
    #[inline(always)]
    fn f16(self, x: &[u8; 32]) -> F {
        let x = cast!(*x, [u8; 32] => [uint16x4_t; 4]);
        [half(x[0]), half(x[1]), half(x[2]), half(x[3])]
    }
}
