//! [`Simd`] on AVX-512: one register a vector.

use std::arch::x86_64::*;

use super::{LANES, Simd};

/// Proof that the machine has AVX-512 F, BW, DQ, VL, VNNI, AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The token, if the machine has the features.
    #[inline]
    pub fn detect() -> Option<Avx512> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx512(()))
    }
}

const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// One intrinsic expression. SAFETY of all uses: `self` exists only if the machine has the features, and
/// every pointer comes from a reference to an array of the full width (unaligned loads and stores).
macro_rules! avx512 {
    ($e:expr) => {
        // SAFETY: see above; the token proves the features, references prove the memory.
        unsafe { $e }
    };
}

impl Simd for Avx512 {
    type F = __m512;
    type U = __m512i;
    type I = __m512i;
    const UNROLL: bool = true;

    #[inline(always)]
    fn prefetch<T>(self, data: &[T], ahead: usize) {
        for line in 0..size_of_val(data).div_ceil(64) {
            let line = data.as_ptr().cast::<u8>().wrapping_add(ahead + 64 * line);
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
        }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        avx512!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        avx512!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        avx512!(_mm512_storeu_ps(out.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn exp2_integer(self, n: __m512) -> __m512 {
        avx512!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }

    #[inline(always)]
    fn words(self, x: &[u8; 64]) -> __m512i {
        avx512!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn field(self, u: __m512i, shift: u32, mask: u32) -> __m512 {
        avx512!({
            let shifted = _mm512_srlv_epi32(u, _mm512_set1_epi32(shift as i32));
            if mask == 15 {
                // The permute reads the low four bits of each index: no mask, no conversion.
                let codes = _mm512_setr_ps(
                    0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
                );
                return _mm512_permutexvar_ps(shifted, codes);
            }
            _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(mask as i32)))
        })
    }
    #[inline(always)]
    fn field2(self, u: (__m512i, u32, u32), v: (__m512i, u32, u32), up: u32) -> __m512 {
        avx512!({
            let low = _mm512_and_si512(
                _mm512_srlv_epi32(u.0, _mm512_set1_epi32(u.1 as i32)),
                _mm512_set1_epi32(u.2 as i32),
            );
            let high = _mm512_and_si512(
                _mm512_srlv_epi32(v.0, _mm512_set1_epi32(v.1 as i32)),
                _mm512_set1_epi32(v.2 as i32),
            );
            _mm512_cvtepi32_ps(_mm512_or_si512(low, _mm512_sllv_epi32(high, _mm512_set1_epi32(up as i32))))
        })
    }
    #[inline(always)]
    fn bytes_field(self, u: __m512i, shift: u32, mask: u8) -> __m512i {
        avx512!({
            let shifted = _mm512_srlv_epi32(u, _mm512_set1_epi32(shift as i32));
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
        })
    }
    #[inline(always)]
    fn bytes_join(self, u: __m512i, v: __m512i, up: u32) -> __m512i {
        avx512!(_mm512_or_si512(u, _mm512_sllv_epi32(v, _mm512_set1_epi32(up as i32))))
    }
    #[inline(always)]
    fn bytes_e2m1(self, u: __m512i) -> __m512i {
        avx512!({
            let table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), u)
        })
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> __m512i {
        avx512!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> __m512i {
        avx512!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn add_i(self, a: __m512i, b: __m512i) -> __m512i {
        avx512!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn dot4(self, acc: __m512i, u: __m512i, x: i32) -> __m512i {
        avx512!(_mm512_dpbusd_epi32(acc, u, _mm512_set1_epi32(x)))
    }
    #[inline(always)]
    fn to_int(self, a: __m512) -> __m512i {
        avx512!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    fn low_digit(self, a: __m512i) -> __m512i {
        avx512!(_mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(a)))
    }
    #[inline(always)]
    fn next_digits(self, a: __m512i, low: __m512i) -> __m512i {
        avx512!(_mm512_srai_epi32::<8>(_mm512_sub_epi32(a, low)))
    }
    #[inline(always)]
    fn narrow(self, a: __m512i) -> [u8; LANES] {
        let mut out = [0; LANES];
        avx512!(_mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a)));
        out
    }
    #[inline(always)]
    fn sum_i(self, a: __m512i) -> i32 {
        avx512!(_mm512_reduce_add_epi32(a))
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: __m512i) -> __m512i {
        avx512!(_mm512_sllv_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn float(self, i: __m512i) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(i))
    }
    #[inline(always)]
    fn store_u(self, u: __m512i, out: &mut [u8; 64]) {
        avx512!(_mm512_storeu_si512(out.as_mut_ptr().cast(), u))
    }
    #[inline(always)]
    fn e2m1(self, u: __m512i, shift: u32) -> __m512 {
        avx512!({
            let shifted = _mm512_srlv_epi32(u, _mm512_set1_epi32(shift as i32));
            _mm512_permutexvar_ps(shifted, _mm512_loadu_ps(E2M1.as_ptr()))
        })
    }
    #[inline(always)]
    fn e4m3(self, u: __m512i, shift: u32) -> __m512 {
        avx512!({
            let byte = _mm512_srlv_epi32(u, _mm512_set1_epi32(shift as i32));
            let sign = _mm512_slli_epi32::<8>(_mm512_and_si512(byte, _mm512_set1_epi32(0x80)));
            let rest = _mm512_slli_epi32::<7>(_mm512_and_si512(byte, _mm512_set1_epi32(0x7f)));
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_or_si512(sign, rest)))
        })
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> __m512i {
        avx512!(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn e8m0(self, u: __m512i) -> __m512 {
        // 2^-127 is subnormal: the maximum supplies its bits where the exponent field is zero.
        avx512!({
            let bits = _mm512_max_epu32(_mm512_slli_epi32::<23>(u), _mm512_set1_epi32(0x0040_0000));
            _mm512_castsi512_ps(bits)
        })
    }
    #[inline(always)]
    fn bf16(self, x: &[u8; 32]) -> __m512 {
        avx512!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    fn f16(self, x: &[u8; 32]) -> __m512 {
        avx512!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }
}
