//! What one core can do at best: reading memory, multiply-adds in f32 and in int8. No part of any model;
//! `bench` holds its figures against these.
//!
//! Plain loops only: a closure that is not inlined would lose the instruction set.

#![allow(clippy::needless_range_loop, reason = "constant bounds over arrays: the loops must unroll")]

use std::hint::black_box;

#[cfg(target_arch = "x86_64")]
use super::Amx;
use super::tiles::{Sums, TILE_BYTES, TILE_ROWS, Tile, Tiles};
use super::{Isa, LANES, Simd, dispatch};

/// Order in which [`read`] goes through memory. Which one is fastest differs from machine to machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One stream; the hardware prefetcher alone.
    Plain,
    /// One stream, asking 4 KiB ahead, as the products of this engine do.
    Ahead,
    /// Four streams far apart, each asking 512 bytes ahead.
    Streams,
}

impl Order {
    /// All orders.
    pub const ALL: [Order; 3] = [Order::Plain, Order::Ahead, Order::Streams];
}

/// Lines read side by side.
const STREAMS: usize = 4;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Reads every cache line of `data` (but up to three at the end) once; the result depends on all of them.
pub fn read(isa: Isa, data: &[u8], order: Order) -> u64 {
    let part = data.len() / LINE / STREAMS;
    match order {
        Order::Plain => join(isa, data, [1, STREAMS], 0),
        Order::Ahead => join(isa, data, [1, STREAMS], 4096),
        Order::Streams => join(isa, data, [part, 1], 512),
    }
}

dispatch! {
    /// The lines `stream · strides[0] + i · strides[1]`, joined bit by bit.
    fn join(data: &[u8], strides: [usize; 2], ahead: usize) -> u64 = join_lines
}

#[inline(always)]
fn join_lines<S: Simd>(simd: S, data: &[u8], strides: [usize; 2], ahead: usize) -> u64 {
    let lines = data.as_chunks::<LINE>().0;
    let mut acc = [simd.words(&[0; LINE]); STREAMS];
    for i in 0..lines.len() / STREAMS {
        for stream in 0..STREAMS {
            let line = &lines[stream * strides[0] + i * strides[1]];
            if ahead > 0 {
                simd.prefetch(line, ahead);
            }
            acc[stream] = simd.bytes_join(acc[stream], simd.words(line), 0);
        }
    }
    let mut joined = 0;
    for stream in 0..STREAMS {
        let mut bytes = [0; LINE];
        simd.store_u(acc[stream], &mut bytes);
        for word in bytes.as_chunks::<8>().0 {
            joined ^= u64::from_le_bytes(*word);
        }
    }
    joined
}

/// Chains of dependent operations per round where registers are 16 and where they are 32 of a whole vector.
const CHAINS: [usize; 2] = [6, 12];

/// Whether a vector of sixteen lanes is one register of 32.
fn wide(isa: Isa) -> bool {
    isa.lanes().to_string() == "avx512"
}

/// Runs independent chains of f32 multiply-adds; returns how many multiply-adds of single numbers were done.
pub fn multiply_add(isa: Isa, rounds: usize) -> u64 {
    let factors = black_box([0.5; 2]);
    black_box(if wide(isa) { fma_12(isa, factors, rounds) } else { fma_6(isa, factors, rounds) });
    (rounds * CHAINS[usize::from(wide(isa))] * LANES) as u64
}

dispatch! { fn fma_6(factors: [f32; 2], rounds: usize) -> f32 = fma_rounds::<_, 6> }
dispatch! { fn fma_12(factors: [f32; 2], rounds: usize) -> f32 = fma_rounds::<_, 12> }

#[inline(always)]
fn fma_rounds<S: Simd, const N: usize>(simd: S, factors: [f32; 2], rounds: usize) -> f32 {
    let [a, b] = [simd.splat(factors[0]), simd.splat(factors[1])];
    let mut acc = [simd.splat(0.0); N];
    for _ in 0..rounds {
        for chain in 0..N {
            acc[chain] = simd.fma(a, b, acc[chain]);
        }
    }
    for chain in 1..N {
        acc[0] = simd.add(acc[0], acc[chain]);
    }
    let mut out = [0.0; LANES];
    simd.store(acc[0], &mut out);
    out[0]
}

/// Bytes that the int8 chains multiply: small enough for the first-level cache.
const CODES: usize = 4096;

/// Runs independent chains of int8 products with `Simd::dot4`, which is what this engine multiplies with
/// (VNNI where the machine has it); returns how many multiply-adds of single bytes were done.
pub fn dot(isa: Isa, rounds: usize) -> u64 {
    let (codes, x) = (black_box([3; CODES]), black_box([0x0102_0304, 0x0203_0405, 0x0304_0506]));
    black_box(if wide(isa) { dot_12(isa, &codes, x, rounds) } else { dot_6(isa, &codes, x, rounds) });
    (rounds * (CODES / LINE) * x.len() * LINE) as u64
}

dispatch! { fn dot_6(codes: &[u8; CODES], x: [i32; 3], rounds: usize) -> u8 = dot_rounds::<_, 2> }
dispatch! { fn dot_12(codes: &[u8; CODES], x: [i32; 3], rounds: usize) -> u8 = dot_rounds::<_, 4> }

/// `N` vectors of codes against three x at a time.
#[inline(always)]
fn dot_rounds<S: Simd, const N: usize>(simd: S, codes: &[u8; CODES], x: [i32; 3], rounds: usize) -> u8 {
    let lines = codes.as_chunks::<LINE>().0;
    let mut acc = [[simd.splat_i(0); 3]; N];
    for _ in 0..rounds {
        for group in lines.as_chunks::<N>().0 {
            for line in 0..N {
                let codes = simd.words(&group[line]);
                for j in 0..3 {
                    acc[line][j] = simd.dot4(acc[line][j], codes, x[j]);
                }
            }
        }
    }
    let mut sum = simd.splat_i(0);
    for line in 0..N {
        for j in 0..3 {
            sum = simd.add_i(sum, acc[line][j]);
        }
    }
    let mut out = [0.0; LANES];
    simd.store(simd.float(sum), &mut out);
    out[0].to_bits() as u8
}

/// Runs int8 products on the tile unit (AMX), with the one operation that this engine has for it: factors
/// from the first-level cache, sums back into it. Returns how many multiply-adds of single bytes were done;
/// `None` where the machine has no tiles or the system does not grant them.
pub fn dot_tiles(rounds: usize) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        return Some(tile_rounds(&mut Amx::detect()?.set_up(TILE_BYTES), rounds));
    }
    #[allow(unreachable_code, reason = "other architectures have none")]
    {
        let _ = rounds;
        None
    }
}

/// Tiles that one operation multiplies for each digit, and digits.
const HALVES: usize = 2;
const FACTORS: usize = 3;

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only tests use it there"))]
fn tile_rounds(tiles: &mut impl Tiles, rounds: usize) -> u64 {
    let [a, b] = black_box([3, 5]).map(|byte| Tile([[byte; TILE_BYTES]; TILE_ROWS]));
    let (a, b, mut sums) = ([[a; FACTORS]; HALVES], [b; HALVES], [Sums::ZERO; FACTORS]);
    for _ in 0..rounds {
        tiles.products(&a, &b, &mut sums);
        black_box(&sums);
    }
    (rounds * HALVES * FACTORS * TILE_ROWS * LANES * TILE_BYTES) as u64
}

/// Binds the calling thread to the `n`-th core that it may use; false where the system does not do that.
pub fn pin(n: usize) -> bool {
    #[cfg(target_os = "linux")]
    {
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: a set of all zero bits is the empty set; both calls get a valid set and its true size, and
        // the macros index below that size.
        return unsafe {
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size, &raw mut allowed) == 0
                && (0..8 * size).filter(|&core| libc::CPU_ISSET(core, &allowed)).nth(n).is_some_and(|core| {
                    libc::CPU_SET(core, &mut one);
                    libc::sched_setaffinity(0, size, &raw const one) == 0
                })
        };
    }
    #[allow(unreachable_code, reason = "other systems only take hints")]
    {
        let _ = n;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_in_every_order_on_every_set() {
        for isa in Isa::available() {
            for order in Order::ALL {
                let mut data = vec![0; 64 * LINE];
                for line in 0..64 {
                    data[line * LINE + line] = 1;
                    assert_ne!(read(isa, &data, order), 0, "{isa} {order:?} line {line}");
                    data[line * LINE + line] = 0;
                }
                assert_eq!(read(isa, &data, order), 0);
            }
        }
    }

    #[test]
    fn probes_count_what_they_do() {
        for isa in Isa::available() {
            assert_eq!(multiply_add(isa, 20), 2 * multiply_add(isa, 10));
            assert_eq!(dot(isa, 4), 2 * dot(isa, 2));
            assert_eq!(multiply_add(isa, 1) % LANES as u64, 0);
        }
        let mut tiles = crate::simd::tiles::emulated::Emulated::set_up(TILE_BYTES);
        assert_eq!(tile_rounds(&mut tiles, 3), 3 * 6 * 16 * 16 * 64);
        assert_eq!(dot_tiles(2).is_some(), Isa::best().to_string().ends_with("+amx"));
    }

    #[test]
    fn a_thread_is_pinned_to_a_core_that_exists() {
        let pinned = std::thread::spawn(|| [pin(0), pin(1 << 20)]).join().unwrap();
        assert_eq!(pinned, [cfg!(target_os = "linux"), false]);
    }
}
