//! Launches that measure what a device does at best.

use super::{Args, Call, Setting, Unit, unit};

fn call(kernel: &'static str, (blocks, block): (u32, u32), args: Args) -> Call {
    let unit = Unit {
        headers: &[unit::DEVICE],
        op: ("cuda/floor.cu", include_str!("floor.cu")),
        defines: Vec::new(),
    };
    Call { unit, kernel, grid: [blocks, 1, 1], block, shared: 0, args }
}

/// Reads `bytes` (a multiple of 16) from `memory`, as weights are read. `sum` is the address of a `u32`.
pub fn read(memory: u64, bytes: usize, sum: u64, setting: &Setting) -> Call {
    let args = Args::new().address(memory).address((bytes / 16) as u64).address(sum);
    call("floor_read", (8 * setting.multiprocessors, 256), args)
}

/// Does nothing: what a launch costs.
pub fn nothing() -> Call {
    call("floor_nothing", (1, 32), Args::new().address(0))
}
