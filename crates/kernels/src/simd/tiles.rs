//! The tile unit (Intel AMX): products of 16×64 signed bytes with 64×16 unsigned bytes, exact in i32.
//!
//! One operation covers what a kernel needs, so that no tile lives longer than a statement of assembly. What
//! each instruction does is written down in `tiles/emulated.rs`, which runs the same program on any machine
//! for tests. Source: Intel SDM vol. 1 ch. 18 and vol. 2 (LDTILECFG, TILELOADD, TDPBSUD, TILESTORED).

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod emulated;

#[cfg(target_arch = "x86_64")]
pub use amx::Amx;

use super::LANES;

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
pub const TILE_BYTES: usize = 64;
/// Bytes as one tile has them; rows may be filled in part.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(1024))]
pub struct Tile(pub [[u8; TILE_BYTES]; TILE_ROWS]);

/// Sums as one tile has them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(1024))]
pub struct Sums(pub [[i32; LANES]; TILE_ROWS]);

impl Tile {
    /// All bytes zero.
    pub const ZERO: Tile = Tile([[0; TILE_BYTES]; TILE_ROWS]);
}

impl Sums {
    /// All sums zero.
    pub const ZERO: Sums = Sums([[0; LANES]; TILE_ROWS]);
}

/// A tile unit, set up for factors of some number of columns: 16, 32 or 64.
pub trait Tiles {
    /// `sums[f][i][j] = Σ_h Σ_k a[h][f].0[i][k] · b[h].0[k / 4][4·j + k % 4]`, a signed and b unsigned,
    /// wrapping; k over the columns set up, h over one or two halves, f over up to three factors that share
    /// b.
    fn products<const H: usize, const D: usize>(
        &mut self,
        a: &[[Tile; D]; H],
        b: &[Tile; H],
        sums: &mut [Sums; D],
    );
}

/// The operand of LDTILECFG: registers 0 to 2 hold sums, 3 unsigned and 4 to 6 signed factors of `cols`
/// columns. Palette in byte 0, bytes of a row from byte 16 (two each), rows from byte 48.
fn configuration(cols: usize) -> [u8; 64] {
    assert!(matches!(cols, 16 | 32 | 64), "factors of {cols} columns");
    let mut bytes = [0; 64];
    bytes[0] = 1;
    for register in 0..7 {
        let (rows, width) = match register {
            3 => (cols / 4, TILE_BYTES),
            4.. => (TILE_ROWS, cols),
            _ => (TILE_ROWS, TILE_BYTES),
        };
        bytes[16 + 2 * register] = width as u8;
        bytes[48 + register] = rows as u8;
    }
    bytes
}

/// Defines `fn $name(amx: Amx, args…)` that runs the generic `$kernel(simd, amx, args…)` compiled for
/// AVX-512.
#[cfg(target_arch = "x86_64")]
macro_rules! dispatch_tiles {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:path) => {
        $(#[$doc])*
        $vis fn $name(amx: $crate::simd::Amx, $($arg: $ty),*) {
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            fn avx512(simd: $crate::simd::Avx512, amx: $crate::simd::Amx, $($arg: $ty),*) {
                $kernel(simd, amx, $($arg),*)
            }
            // SAFETY: the token holds that of AVX-512, which proves that the machine has the features.
            unsafe { avx512(amx.lanes(), amx, $($arg),*) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use dispatch_tiles;
