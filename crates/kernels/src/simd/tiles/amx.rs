//! [`Tiles`] on the processor.
//!
//! In assembly, because the intrinsics are not stable. The names of the registers are part of the program,
//! and the program is also assembled on its own in a test, which compares it with the bytes of Intel's
//! encoding.

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::{Sums, TILE_BYTES, Tile, Tiles, configuration};
use crate::simd::Avx512;

/// Proof that the machine has AMX tiles with int8 and AVX-512, and that the system lets this process use
/// them.
#[derive(Clone, Copy, Debug)]
pub struct Amx(Avx512);

impl Amx {
    /// The token, if machine and system have what it stands for. The first call asks the system, for all
    /// threads.
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
        // SAFETY: the token proves that the instruction exists and is allowed. It reads the 64 bytes of the
        // array: without `nomem` the compiler must have stored all of them. `configuration` follows the rules
        // of palette 1 (at most 16 rows of at most 64 bytes), so it does not fault. It changes no register
        // that Rust knows.
        unsafe {
            let at = configuration.as_ptr();
            asm!("ldtilecfg [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
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
/// Bound to its thread, since the set-up is a register. Only one may live on a thread: with a second, the
/// first would end at an illegal instruction.
#[derive(Debug)]
pub struct Configured(PhantomData<*const ()>);

/// One factor: rdi signed factors, rcx the stride of 64; tmm3 holds the unsigned factor.
macro_rules! add {
    ($sums:literal, $signed:literal, $at:literal) => {
        concat!(
            "tileloadd tmm",
            $signed,
            ", [rdi + rcx*1 + ",
            $at,
            "]\n",
            "tdpbsud tmm",
            $sums,
            ", tmm",
            $signed,
            ", tmm3\n",
        )
    };
}

/// Clears the sums, loads the unsigned factor (rsi) and up to three signed ones, multiplies; the same for a
/// second half; stores the sums (rdx). By number of factors and halves.
macro_rules! program {
    (1, 1) => { concat!(program!(@zero 1), program!(@b 0), add!(0, 4, 0), program!(@store 1)) };
    (1, 2) => {
        concat!(
            program!(@zero 1), program!(@b 0), add!(0, 4, 0), program!(@b 1024), add!(0, 4, 1024),
            program!(@store 1),
        )
    };
    (2, 1) => {
        concat!(program!(@zero 2), program!(@b 0), add!(0, 4, 0), add!(1, 5, 1024), program!(@store 2))
    };
    (2, 2) => {
        concat!(
            program!(@zero 2), program!(@b 0), add!(0, 4, 0), add!(1, 5, 1024),
            program!(@b 1024), add!(0, 4, 2048), add!(1, 5, 3072), program!(@store 2),
        )
    };
    (3, 1) => {
        concat!(
            program!(@zero 3), program!(@b 0), add!(0, 4, 0), add!(1, 5, 1024), add!(2, 6, 2048),
            program!(@store 3),
        )
    };
    (3, 2) => {
        concat!(
            program!(@zero 3), program!(@b 0), add!(0, 4, 0), add!(1, 5, 1024), add!(2, 6, 2048),
            program!(@b 1024), add!(0, 4, 3072), add!(1, 5, 4096), add!(2, 6, 5120), program!(@store 3),
        )
    };
    (@zero 1) => { "tilezero tmm0\n" };
    (@zero 2) => { "tilezero tmm0\n tilezero tmm1\n" };
    (@zero 3) => { "tilezero tmm0\n tilezero tmm1\n tilezero tmm2\n" };
    (@b $at:literal) => { concat!("tileloadd tmm3, [rsi + rcx*1 + ", $at, "]\n") };
    (@store 1) => { "tilestored [rdx + rcx*1], tmm0\n" };
    (@store 2) => { concat!(program!(@store 1), "tilestored [rdx + rcx*1 + 1024], tmm1\n") };
    (@store 3) => { concat!(program!(@store 2), "tilestored [rdx + rcx*1 + 2048], tmm2\n") };
}

/// Runs a program. SAFETY of all uses: `Configured` exists only after LDTILECFG on this thread, so the
/// instructions exist and their shapes fit each other. Every load and store stays within 16 rows of 64 bytes
/// of the tile it names, and the arrays of `a`, `b` and `sums` hold H·D, H and D tiles of 1024 bytes back to
/// back; memory is not excluded in the options, so the compiler assumes that it is read and written. The tile
/// registers are written before they are read and are named as lost: nothing is expected in them before or
/// after. The compiler itself never uses them (no function of this program is compiled for AMX), nor does any
/// library that this crate calls between set-up and release. What lives on between statements is the
/// configuration alone, which Rust code cannot observe; the system saves and restores it with the thread's
/// registers, for signal handlers too.
macro_rules! run {
    ($a:ident, $b:ident, $sums:ident, $program:expr) => {
        // SAFETY: see above.
        unsafe {
            asm!(
                $program,
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
    fn products<const H: usize, const D: usize>(
        &mut self,
        a: &[[Tile; D]; H],
        b: &[Tile; H],
        sums: &mut [Sums; D],
    ) {
        const { assert!(matches!((D, H), (1..=3, 1 | 2)), "up to three factors, one or two halves") };
        match (D, H) {
            (1, 1) => run!(a, b, sums, program!(1, 1)),
            (1, _) => run!(a, b, sums, program!(1, 2)),
            (2, 1) => run!(a, b, sums, program!(2, 1)),
            (2, _) => run!(a, b, sums, program!(2, 2)),
            (_, 1) => run!(a, b, sums, program!(3, 1)),
            _ => run!(a, b, sums, program!(3, 2)),
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
        program!(1, 1),
        program!(1, 2),
        program!(2, 1),
        program!(2, 2),
        program!(3, 1),
        program!(3, 2),
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
        let mut expected = Vec::new();
        for (factors, halves) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)] {
            (0..factors).for_each(|tmm| expected.extend([0xc4, 0xe2, 0x7b, 0x49, 0xc0 | tmm << 3]));
            for half in 0..halves {
                expected.extend(memory(LOAD, 3, RSI, 1024 * half));
                for i in 0..factors {
                    let tile = u32::from(factors) * half + u32::from(i);
                    expected.extend(memory(LOAD, 4 + i, RDI, 1024 * tile));
                    expected.extend(tdpbsud(i, 4 + i, 3));
                }
            }
            (0..factors).for_each(|i| expected.extend(memory(STORE, i, RDX, 1024 * u32::from(i))));
        }
        expected.extend([0xc4, 0xe2, 0x78, 0x49, 0x07]);
        expected.extend([0xc4, 0xe2, 0x78, 0x49, 0xc0]);
        // SAFETY: the program lies in the text of this binary; where it is shorter than expected, what
        // follows is other code or padding of the same mapped page or the next one of the text.
        let found = unsafe { std::slice::from_raw_parts(&raw const PROGRAM, expected.len()) };
        assert_eq!(found, expected);
    }
}
