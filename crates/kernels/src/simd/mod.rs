//! Sixteen f32 lanes on any machine. A kernel is written once over [`Simd`]; [`Isa`] picks the instance at
//! run time.
//!
//! Every operation is exactly rounded and lane-wise, so all instruction sets give the same bits.
//! A value of an implementing type is a token: it exists only after detection, which is what makes the
//! intrinsics in its methods sound.

mod math;
pub mod peak;
mod scalar;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only tests use it there"))]
pub(crate) mod tiles;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(test)]
mod cases;

use std::fmt;

pub use math::{exp, sigmoid, softplus, sum, tanh};
pub use scalar::Scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::{Dot, Neon, Pairs, Sdot, Usdot};
#[cfg(target_arch = "x86_64")]
pub use tiles::Amx;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Sixteen lanes of f32 (`F`) and of u32 (`U`).
pub trait Simd: Copy {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen u32, or sixteen times four bytes.
    type U: Copy;
    /// Sixteen i32.
    type I: Copy;

    /// Whether there are registers enough for kernels that keep a whole unit of codes in them.
    const UNROLL: bool = false;
    /// Whether kernels should rather be small than fast.
    const COMPACT: bool = false;

    /// Asks for the cache lines of `data` shifted by `ahead` bytes; may lie past the end, where it does
    /// nothing.
    #[inline(always)]
    fn prefetch<T>(self, _data: &[T], _ahead: usize) {}
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Lane i from element i.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Element i from lane i.
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Lane-wise minimum; the second operand where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Lane-wise maximum; the second operand where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integral `n` in -126..=127.
    fn exp2_integer(self, n: Self::F) -> Self::F;

    /// Sixteen little-endian words.
    fn words(self, x: &[u8; 64]) -> Self::U;
    /// `(u >> shift) & mask` as f32; mask below 2^24.
    fn field(self, u: Self::U, shift: u32, mask: u32) -> Self::F;
    /// `((u >> shift) & mask) | (((v >> v_shift) & v_mask) << up)` as f32.
    fn field2(self, u: (Self::U, u32, u32), v: (Self::U, u32, u32), up: u32) -> Self::F;
    /// In each byte the field at `shift` (below 8) of `mask` (at most 255, shifted right).
    fn bytes_field(self, u: Self::U, shift: u32, mask: u8) -> Self::U;
    /// In each byte `u | v << up`; fields do not overlap.
    fn bytes_join(self, u: Self::U, v: Self::U, up: u32) -> Self::U;
    /// In each byte a code below 16 as twice its E2M1 value plus 12 (0 to 24).
    fn bytes_e2m1(self, u: Self::U) -> Self::U;
    /// All lanes `x`.
    fn splat_i(self, x: i32) -> Self::I;
    /// Lane i from element i.
    fn load_i(self, x: &[i32; LANES]) -> Self::I;
    /// `a + b`, wrapping.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `acc + Σ u_b · x_b` over the four bytes of a lane; u unsigned, x signed.
    fn dot4(self, acc: Self::I, u: Self::U, x: i32) -> Self::I;
    /// The nearest integer, ties to even; below 2^24 in magnitude.
    fn to_int(self, a: Self::F) -> Self::I;
    /// The low byte as a number in -128..=127.
    fn low_digit(self, a: Self::I) -> Self::I;
    /// `(a - low) / 256`, for what [`Simd::low_digit`] gives.
    fn next_digits(self, a: Self::I, low: Self::I) -> Self::I;
    /// The low byte of every lane.
    fn narrow(self, a: Self::I) -> [u8; LANES];
    /// Sum of the lanes.
    fn sum_i(self, a: Self::I) -> i32;
    /// `a · 2^N`, wrapping.
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I;
    /// The nearest f32.
    fn float(self, i: Self::I) -> Self::F;
    /// Stores sixteen words.
    fn store_u(self, u: Self::U, out: &mut [u8; 64]);
    /// The 4-bit field at `shift` as E2M1 (sign, 0 .5 1 1.5 2 3 4 6).
    fn e2m1(self, u: Self::U, shift: u32) -> Self::F;
    /// The byte at `shift` as E4M3 divided by 2^8 (the caller folds the factor into the scale).
    fn e4m3(self, u: Self::U, shift: u32) -> Self::F;
    /// Sixteen bytes, zero-extended.
    fn bytes(self, x: &[u8; LANES]) -> Self::U;
    /// `2^(u - 127)` for u in 0..=254 (E8M0).
    fn e8m0(self, u: Self::U) -> Self::F;
    /// Sixteen bf16 to f32.
    fn bf16(self, x: &[u8; 32]) -> Self::F;
    /// Sixteen f16 to f32.
    fn f16(self, x: &[u8; 32]) -> Self::F;
}

/// Instruction sets this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust.
    Scalar,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512, and AMX tiles for products of many rows with integer codes.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// NEON as every aarch64 has it.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with products of bytes: USDOT (I8MM) where the machine has it, else SDOT (DotProd).
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Isa {
    /// All sets this machine runs, widest first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut, reason = "no other set is known on some targets")]
        let mut all = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(|_| Isa::Avx2));
            all.extend(Avx512::detect().map(|_| Isa::Avx512));
            all.extend(Amx::detect().map(|_| Isa::Amx));
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.extend(Neon::<Pairs>::detect().map(|_| Isa::Neon));
            let dot = Neon::<Usdot>::detect().is_some() || Neon::<Sdot>::detect().is_some();
            all.extend(dot.then_some(Isa::NeonDot));
        }
        all.reverse();
        all
    }

    /// The set that runs all that this one runs, but for the products on tiles.
    pub fn lanes(self) -> Isa {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512,
            other => other,
        }
    }

    /// The widest set of this machine.
    pub fn best() -> Isa {
        Isa::available()[0]
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => "avx512+amx",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => "neon-dot",
        })
    }
}

/// Defines `pub fn $name(isa: Isa, args…)` that runs the generic `$kernel(simd, args…)` compiled for `isa`.
/// An `isa` the machine lacks falls back to scalar, which gives the same bits.
#[doc(hidden)]
#[macro_export]
macro_rules! dispatch {
    ($(#[$doc:meta])*
     $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:path) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2(simd: $crate::simd::Avx2, $($arg: $ty),*) $(-> $ret)? {
                $crate::simd::align_frame();
                $kernel(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            fn avx512(simd: $crate::simd::Avx512, $($arg: $ty),*) $(-> $ret)? {
                $crate::simd::align_frame();
                $kernel(simd, $($arg),*)
            }
            // One function for each: together they would make one so large that it takes minutes to compile.
            #[cfg(target_arch = "aarch64")]
            #[inline(never)]
            fn neon<D: $crate::simd::Dot>(simd: $crate::simd::Neon<D>, $($arg: $ty),*) $(-> $ret)? {
                $kernel(simd, $($arg),*)
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx512 | $crate::simd::Isa::Amx => {
                    if let Some(simd) = $crate::simd::Avx512::detect() {
                        // SAFETY: the token proves that the machine has the features.
                        return unsafe { avx512(simd, $($arg),*) };
                    }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx2 => {
                    if let Some(simd) = $crate::simd::Avx2::detect() {
                        // SAFETY: the token proves that the machine has the features.
                        return unsafe { avx2(simd, $($arg),*) };
                    }
                }
                #[cfg(target_arch = "aarch64")]
                $crate::simd::Isa::Neon => {
                    if let Some(simd) = $crate::simd::Neon::<$crate::simd::Pairs>::detect() {
                        return neon(simd, $($arg),*);
                    }
                }
                #[cfg(target_arch = "aarch64")]
                $crate::simd::Isa::NeonDot => {
                    if let Some(simd) = $crate::simd::Neon::<$crate::simd::Usdot>::detect() {
                        return neon(simd, $($arg),*);
                    }
                    if let Some(simd) = $crate::simd::Neon::<$crate::simd::Sdot>::detect() {
                        return neon(simd, $($arg),*);
                    }
                }
                $crate::simd::Isa::Scalar => {}
            }
            $kernel($crate::simd::Scalar, $($arg),*)
        }
    };
}
pub(crate) use crate::dispatch;

/// Aligns the stack frame of the caller to a cache line. A compiler aligns a frame for variables but not for
/// registers it spills: half of the spilled vectors would cross a line, wherever the thread's stack happens
/// to start (measured in `linear/NOTES.md`).
#[inline(always)]
#[doc(hidden)]
pub fn align_frame() {
    #[repr(align(64))]
    struct Line;
    let line = std::mem::MaybeUninit::<(Line, u8)>::uninit();
    std::hint::black_box(&line);
}

/// The `[f32; 16]` at `x[at..]`.
#[inline(always)]
pub(crate) fn lanes(x: &[f32], at: usize) -> &[f32; LANES] {
    x[at..].first_chunk().expect("sixteen lanes")
}

/// The mutable `[f32; 16]` at `x[at..]`.
#[inline(always)]
pub(crate) fn lanes_mut(x: &mut [f32], at: usize) -> &mut [f32; LANES] {
    x[at..].first_chunk_mut().expect("sixteen lanes")
}

/// Up to sixteen values, the rest zero.
#[inline(always)]
pub(crate) fn padded(x: &[f32]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    out[..x.len()].copy_from_slice(x);
    out
}

/// `x ← f(x, start)` sixteen at a time; the last, short vector is padded with zeros.
#[inline(always)]
pub(crate) fn update<S: Simd>(simd: S, x: &mut [f32], mut f: impl FnMut(S::F, usize) -> S::F) {
    let whole = x.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let lane = lanes_mut(x, at);
        simd.store(f(simd.load(lane), at), lane);
    }
    if whole < x.len() {
        let mut tail = padded(&x[whole..]);
        simd.store(f(simd.load(&tail), whole), &mut tail);
        let len = x.len() - whole;
        x[whole..].copy_from_slice(&tail[..len]);
    }
}

/// Stores sixteen values at `at`, or as many as there is room for.
#[inline(always)]
pub(crate) fn store_at<S: Simd>(simd: S, v: S::F, out: &mut [f32], at: usize) {
    let out = &mut out[at..];
    match out.first_chunk_mut() {
        Some(whole) => simd.store(v, whole),
        None => {
            let mut tail = [0.0; LANES];
            simd.store(v, &mut tail);
            out.copy_from_slice(&tail[..out.len()]);
        }
    }
}

/// Sixteen values from `at`, zero past the end.
#[inline(always)]
pub(crate) fn load_at<S: Simd>(simd: S, x: &[f32], at: usize) -> S::F {
    match x[at..].first_chunk() {
        Some(whole) => simd.load(whole),
        None => simd.load(&padded(&x[at..])),
    }
}
