//! Launches that measure what a device does at best.

use super::unit;
use crate::gpu::{Args, Call, Unit};

fn call(kernel: &'static str, (blocks, block): (u32, u32), args: Args) -> Call {
    let unit = Unit {
        headers: &[unit::DEVICE],
        op: ("cuda/floor.cu", include_str!("floor.cu")),
        defines: Vec::new(),
    };
    Call { unit, kernel, grid: [blocks, 1, 1], block, shared: 0, args }
}

/// Reads `bytes` (a multiple of 16) from `memory`, as weights are read, on a device of that many
/// multiprocessors. `sum` is the address of a `u32`.
pub fn read(memory: u64, bytes: usize, sum: u64, multiprocessors: u32) -> Call {
    let args = Args::new().address(memory).address((bytes / 16) as u64).address(sum);
    call("floor_read", (8 * multiprocessors, 256), args)
}

/// Does nothing: what a launch costs.
pub fn nothing() -> Call {
    call("floor_nothing", (1, 32), Args::new().address(0))
}

/// Barriers of all blocks of a grid that is on the device at once, a block per multiprocessor: what a phase
/// of a launch that does a whole token costs. `arrived` is the address of a `u32` that is zero before;
/// `passed` of two `u32` per block: how many barriers there were, and at how many of them the block found its
/// neighbour there, too.
pub fn barriers(count: usize, arrived: u64, passed: u64, blocks: u32) -> Call {
    let args = Args::new().address(arrived).address(passed).size(count).size(0);
    call("floor_barrier", (blocks, 256), args)
}
