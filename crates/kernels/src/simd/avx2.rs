//! [`Simd`] on AVX2: two registers a vector.

use std::arch::x86_64::*;

use super::{LANES, Simd};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if the machine has the features.
    #[inline]
    pub fn detect() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }
}

type F = [__m256; 2];
type U = [__m256i; 2];

/// One intrinsic expression. SAFETY of all uses: `self` exists only if the machine has the features, and
/// every pointer comes from a reference to an array of the full width (unaligned loads and stores).
macro_rules! avx2 {
    ($e:expr) => {
        // SAFETY: see above; the token proves the features, references prove the memory.
        unsafe { $e }
    };
}

/// The low and the high half of an expression in `$i`.
macro_rules! both {
    ($i:ident => $e:expr) => {
        avx2!([
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            }
        ])
    };
}

/// `(u >> shift) & mask` of half `i`.
#[inline(always)]
fn bits(u: __m256i, shift: u32, mask: u32) -> __m256i {
    avx2!({
        let shifted = _mm256_srl_epi32(u, _mm_cvtsi32_si128(shift as i32));
        _mm256_and_si256(shifted, _mm256_set1_epi32(mask as i32))
    })
}

impl Simd for Avx2 {
    type F = F;
    type U = U;
    type I = U;

    #[inline(always)]
    fn prefetch<T>(self, data: &[T], ahead: usize) {
        for line in 0..size_of_val(data).div_ceil(64) {
            let line = data.as_ptr().cast::<u8>().wrapping_add(ahead + 64 * line);
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
        }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> F {
        avx2!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        both!(i => _mm256_loadu_ps(x.as_ptr().add(8 * i)))
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        avx2!({
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
        })
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        both!(i => _mm256_add_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        both!(i => _mm256_sub_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        both!(i => _mm256_mul_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        both!(i => _mm256_div_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        both!(i => _mm256_fmadd_ps(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        both!(i => _mm256_min_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        both!(i => _mm256_max_ps(a[i], b[i]))
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        both!(i => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[i]))
    }
    #[inline(always)]
    fn exp2_integer(self, n: F) -> F {
        both!(i => {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n[i]), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }

    #[inline(always)]
    fn words(self, x: &[u8; 64]) -> U {
        both!(i => _mm256_loadu_si256(x.as_ptr().add(32 * i).cast()))
    }
    #[inline(always)]
    fn field(self, u: U, shift: u32, mask: u32) -> F {
        both!(i => _mm256_cvtepi32_ps(bits(u[i], shift, mask)))
    }
    #[inline(always)]
    fn field2(self, u: (U, u32, u32), v: (U, u32, u32), up: u32) -> F {
        both!(i => {
            let high = _mm256_sll_epi32(bits(v.0[i], v.1, v.2), _mm_cvtsi32_si128(up as i32));
            _mm256_cvtepi32_ps(_mm256_or_si256(bits(u.0[i], u.1, u.2), high))
        })
    }
    #[inline(always)]
    fn bytes_field(self, u: U, shift: u32, mask: u8) -> U {
        both!(i => {
            let shifted = _mm256_srl_epi32(u[i], _mm_cvtsi32_si128(shift as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        })
    }
    #[inline(always)]
    fn bytes_join(self, u: U, v: U, up: u32) -> U {
        both!(i => _mm256_or_si256(u[i], _mm256_sll_epi32(v[i], _mm_cvtsi32_si128(up as i32))))
    }
    #[inline(always)]
    fn bytes_e2m1(self, u: U) -> U {
        both!(i => {
            let table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), u[i])
        })
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> U {
        avx2!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> U {
        both!(i => _mm256_loadu_si256(x.as_ptr().add(8 * i).cast()))
    }
    #[inline(always)]
    fn add_i(self, a: U, b: U) -> U {
        both!(i => _mm256_add_epi32(a[i], b[i]))
    }
    #[inline(always)]
    fn dot4(self, acc: U, u: U, x: i32) -> U {
        // Even and odd bytes as 16-bit pairs: exact for every u, where `maddubs` would saturate.
        avx2!({
            let x = _mm256_set1_epi32(x);
            let (even, odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)), _mm256_srai_epi16::<8>(x));
            let mask = _mm256_set1_epi16(0xff);
            let half = [
                _mm256_add_epi32(
                    _mm256_madd_epi16(_mm256_and_si256(u[0], mask), even),
                    _mm256_madd_epi16(_mm256_srli_epi16::<8>(u[0]), odd),
                ),
                _mm256_add_epi32(
                    _mm256_madd_epi16(_mm256_and_si256(u[1], mask), even),
                    _mm256_madd_epi16(_mm256_srli_epi16::<8>(u[1]), odd),
                ),
            ];
            [_mm256_add_epi32(acc[0], half[0]), _mm256_add_epi32(acc[1], half[1])]
        })
    }
    #[inline(always)]
    fn to_int(self, a: F) -> U {
        both!(i => _mm256_cvtps_epi32(a[i]))
    }
    #[inline(always)]
    fn low_digit(self, a: U) -> U {
        both!(i => _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(a[i])))
    }
    #[inline(always)]
    fn next_digits(self, a: U, low: U) -> U {
        both!(i => _mm256_srai_epi32::<8>(_mm256_sub_epi32(a[i], low[i])))
    }
    #[inline(always)]
    fn narrow(self, a: U) -> [u8; LANES] {
        let mut out = [0; LANES];
        avx2!({
            // The low bytes of four lanes next to each other in each half, then the halves.
            let pick = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            for (i, a) in a.into_iter().enumerate() {
                let picked = _mm256_shuffle_epi8(a, pick);
                let bytes =
                    _mm_or_si128(_mm256_castsi256_si128(picked), _mm256_extracti128_si256::<1>(picked));
                _mm_storel_epi64(out.as_mut_ptr().add(8 * i).cast(), bytes);
            }
        });
        out
    }
    #[inline(always)]
    fn sum_i(self, a: U) -> i32 {
        let mut lanes = [0; 8];
        avx2!(_mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_add_epi32(a[0], a[1])));
        lanes.iter().fold(0, |sum, a| sum.wrapping_add(*a))
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: U) -> U {
        both!(i => _mm256_slli_epi32::<N>(a[i]))
    }
    #[inline(always)]
    fn float(self, i: U) -> F {
        both!(j => _mm256_cvtepi32_ps(i[j]))
    }
    #[inline(always)]
    fn store_u(self, u: U, out: &mut [u8; 64]) {
        avx2!({
            _mm256_storeu_si256(out.as_mut_ptr().cast(), u[0]);
            _mm256_storeu_si256(out.as_mut_ptr().add(32).cast(), u[1]);
        })
    }
    #[inline(always)]
    fn e2m1(self, u: U, shift: u32) -> F {
        both!(i => {
            let shifted = _mm256_srl_epi32(u[i], _mm_cvtsi32_si128(shift as i32));
            // The permute reads the low three bits; bit 3 becomes the sign.
            let table = _mm256_setr_ps(0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0);
            let magnitude = _mm256_permutevar8x32_ps(table, shifted);
            let sign = _mm256_and_si256(_mm256_slli_epi32::<28>(shifted), _mm256_set1_epi32(i32::MIN));
            _mm256_or_ps(magnitude, _mm256_castsi256_ps(sign))
        })
    }
    #[inline(always)]
    fn e4m3(self, u: U, shift: u32) -> F {
        both!(i => {
            let sign = _mm256_slli_epi32::<8>(bits(u[i], shift, 0x80));
            let half = _mm256_or_si256(sign, _mm256_slli_epi32::<7>(bits(u[i], shift, 0x7f)));
            // 32-bit lanes hold values below 2^16: pack the two 128-bit halves into one.
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            _mm256_cvtph_ps(packed)
        })
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> U {
        both!(i => _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().add(8 * i).cast())))
    }
    #[inline(always)]
    fn e8m0(self, u: U) -> F {
        // 2^-127 is subnormal: the maximum supplies its bits where the exponent field is zero.
        both!(i => {
            let bits = _mm256_max_epu32(_mm256_slli_epi32::<23>(u[i]), _mm256_set1_epi32(0x0040_0000));
            _mm256_castsi256_ps(bits)
        })
    }
    #[inline(always)]
    fn bf16(self, x: &[u8; 32]) -> F {
        both!(i => {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().add(16 * i).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    fn f16(self, x: &[u8; 32]) -> F {
        both!(i => _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().add(16 * i).cast())))
    }
}
