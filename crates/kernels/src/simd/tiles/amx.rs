//! [`Tiles`] on the processor.
//!
//! In assembly, because the intrinsics are not stable. The names of the registers are part of the program, and the
//! program is also assembled on its own in a test, which compares it with the bytes of Intel's encoding.

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::{FACTORS, Sums, TILE_BYTES, Tile, Tiles, configuration};
use crate::simd::Avx512;

/// Proof that the machine has AMX tiles with int8 and AVX-512, and that the system lets this process use them.
#[derive(Clone, Copy, Debug)]
pub struct Amx(Avx512);

impl Amx {
    /// The token, if machine and system have what it stands for. The first call asks the system, for all threads.
    #[inline]
    pub fn detect() -> Option<Amx> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        let lanes = Avx512::detect()?;
        FOUND.get_or_init(|| has_tiles() && system_saves_tiles() && system_permits()).then_some(Amx(lanes))
    }

    /// The proof of AVX-512.
    #[inline]
    pub fn lanes(self) -> Avx512 {
        self.0
    }

    /// Sets the tile unit up for factors of `cols` columns (16, 32 or 64) until the result is dropped.
    #[inline]
    pub fn set_up(self, cols: usize) -> Configured {
        let configuration = configuration(cols);
        // SAFETY: the token proves that the instruction exists and is allowed. It reads the 64 bytes of the array:
        // without `nomem` the compiler must have stored all of them. `configuration` follows the rules of palette 1
        // (at most 16 rows of at most 64 bytes), so it does not fault. It changes no register that Rust knows.
        unsafe {
            asm!("ldtilecfg [{0}]", in(reg) configuration.as_ptr(), options(nostack, preserves_flags, readonly));
        }
        Configured(PhantomData)
    }
}

/// Whether the processor has AMX tiles for int8.
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // Leaf 7, EDX: bit 24 tiles, bit 25 int8 on tiles (Intel SDM, CPUID).
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 24 & 3 == 3
}

/// Whether the system switched both parts of the tile state on (XCR0: 17 configuration, 18 data).
fn system_saves_tiles() -> bool {
    if !is_x86_feature_detected!("xsave") {
        return false;
    }
    // SAFETY: the processor has XSAVE and the system enabled it; register 0 always exists.
    unsafe { std::arch::x86_64::_xgetbv(0) >> 17 & 3 == 3 }
}

/// Linux gives a process the data of tiles (8 KiB a thread) only when asked, see its `arch/x86/xstate.rst`.
#[cfg(target_os = "linux")]
fn system_permits() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of this process; an older kernel refuses it.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Not known to work elsewhere.
#[cfg(not(target_os = "linux"))]
fn system_permits() -> bool {
    false
}

/// The tile unit of this thread, set up; dropping it brings the unit back to its initial state.
///
/// Bound to its thread, since the set-up is a register. Only one may live on a thread: with a second, the first would
/// end at an illegal instruction.
#[derive(Debug)]
pub struct Configured(PhantomData<*const ()>);

/// Clears the sums, loads one unsigned and three signed factors, multiplies.
/// rdi signed factors, rsi unsigned ones, rdx sums, rcx the stride of 64.
macro_rules! first_half {
    () => {
        "tilezero tmm0
        tilezero tmm1
        tilezero tmm2
        tileloadd tmm3, [rsi + rcx*1]
        tileloadd tmm4, [rdi + rcx*1]
        tileloadd tmm5, [rdi + rcx*1 + 1024]
        tileloadd tmm6, [rdi + rcx*1 + 2048]
        tdpbsud tmm0, tmm4, tmm3
        tdpbsud tmm1, tmm5, tmm3
        tdpbsud tmm2, tmm6, tmm3
        "
    };
}

/// Adds the product of the second half.
macro_rules! second_half {
    () => {
        "tileloadd tmm3, [rsi + rcx*1 + 1024]
        tileloadd tmm4, [rdi + rcx*1 + 3072]
        tileloadd tmm5, [rdi + rcx*1 + 4096]
        tileloadd tmm6, [rdi + rcx*1 + 5120]
        tdpbsud tmm0, tmm4, tmm3
        tdpbsud tmm1, tmm5, tmm3
        tdpbsud tmm2, tmm6, tmm3
        "
    };
}

/// Stores the sums.
macro_rules! store {
    () => {
        "tilestored [rdx + rcx*1], tmm0
        tilestored [rdx + rcx*1 + 1024], tmm1
        tilestored [rdx + rcx*1 + 2048], tmm2
        "
    };
}

/// Runs the program. SAFETY of both uses: `Configured` exists only after LDTILECFG on this thread, so the
/// instructions exist and their shapes fit each other. Every load and store stays within 16 rows of 64 bytes of the
/// tile it names, and the arrays of `a`, `b` and `sums` hold H·3, H and 3 tiles of 1024 bytes back to back; memory is
/// not excluded in the options, so the compiler assumes that it is read and written. The tile registers are written
/// before they are read and are named as lost: nothing is expected in them before or after. The compiler itself never
/// uses them (no function of this program is compiled for AMX), nor does any library that this crate calls between
/// set-up and release. What lives on between statements is the configuration alone, which Rust code cannot observe;
/// the system saves and restores it with the thread's registers, for signal handlers too.
macro_rules! run {
    ($a:ident, $b:ident, $sums:ident, $($program:expr),*) => {
        // SAFETY: see above.
        unsafe {
            asm!(
                $($program,)*
                in("rdi") $a.as_ptr(),
                in("rsi") $b.as_ptr(),
                in("rdx") $sums.as_mut_ptr(),
                in("rcx") TILE_BYTES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                out("tmm6") _,
                options(nostack, preserves_flags),
            )
        }
    };
}

impl Tiles for Configured {
    #[inline(always)]
    fn products<const H: usize>(
        &mut self,
        a: &[[Tile; FACTORS]; H],
        b: &[Tile; H],
        sums: &mut [Sums; FACTORS],
    ) {
        const { assert!(H == 1 || H == 2, "one or two halves") };
        if H == 1 {
            run!(a, b, sums, first_half!(), store!());
        } else {
            run!(a, b, sums, first_half!(), second_half!(), store!());
        }
    }
}

impl Drop for Configured {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the value exists only where the instruction does; tile registers hold nothing of value.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::arch::global_asm;

    global_asm!(
        ".globl amoeba_tile_program",
        "amoeba_tile_program:",
        first_half!(),
        second_half!(),
        store!(),
        "ldtilecfg [rdi]",
        "tilerelease",
    );

    unsafe extern "C" {
        #[link_name = "amoeba_tile_program"]
        static PROGRAM: u8;
    }

    /// Register numbers in the encoding.
    const RDX: u8 = 2;
    const RSI: u8 = 6;
    const RDI: u8 = 7;

    /// VEX.128.F2 or F3.0F38.W0 4B /r with base + rcx and, unless it is zero, 32 bits more.
    fn memory(prefix: u8, tmm: u8, base: u8, offset: u32) -> Vec<u8> {
        let mode = if offset == 0 { 0x04 } else { 0x84 };
        let mut bytes = vec![0xc4, 0xe2, 0x78 | prefix, 0x4b, mode | tmm << 3, 1 << 3 | base];
        if offset != 0 {
            bytes.extend(offset.to_le_bytes());
        }
        bytes
    }

    /// VEX.128.F3.0F38.W0 5E /r: the unsigned factor is in the prefix.
    fn tdpbsud(sums: u8, signed: u8, unsigned: u8) -> Vec<u8> {
        vec![0xc4, 0xe2, (!unsigned & 15) << 3 | 2, 0x5e, 0xc0 | sums << 3 | signed]
    }

    #[test]
    fn the_program_is_assembled_as_intel_documents_it() {
        const LOAD: u8 = 3;
        const STORE: u8 = 2;
        let mut expected: Vec<u8> =
            (0..3).flat_map(|tmm| [0xc4, 0xe2, 0x7b, 0x49, 0xc0 | tmm << 3]).collect();
        for half in 0..2 {
            expected.extend(memory(LOAD, 3, RSI, 1024 * half));
            (0..3u8).for_each(|i| {
                expected.extend(memory(LOAD, 4 + i, RDI, 1024 * (3 * half + u32::from(i))));
            });
            (0..3).for_each(|i| expected.extend(tdpbsud(i, 4 + i, 3)));
        }
        (0..3u8).for_each(|i| expected.extend(memory(STORE, i, RDX, 1024 * u32::from(i))));
        expected.extend([0xc4, 0xe2, 0x78, 0x49, 0x07]);
        expected.extend([0xc4, 0xe2, 0x78, 0x49, 0xc0]);
        // SAFETY: the program lies in the text of this binary; where it is shorter than expected, what follows is
        // other code or padding of the same mapped page or the next one of the text.
        let found = unsafe { std::slice::from_raw_parts(&raw const PROGRAM, expected.len()) };
        assert_eq!(found, expected);
    }
}
