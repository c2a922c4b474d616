//! Times of launches: kernels compiled with [`TRACED`] defined leave the device's clock where a stamp tells
//! them to.

use super::unit;
use crate::gpu::{Args, Call, Unit};

/// Macro with which kernels take a stamp after their arguments: see [`Call::stamped`].
pub const TRACED: &str = "AMOEBA_TRACE";

/// Bytes of a stamp: `u64` start, when the first block had waited for the launch before, and `u64` end, when
/// the last was done; ns of the device's clock. A launch whose blocks all had nothing to do leaves the start
/// at its most.
pub const STAMP_BYTES: usize = 16;

/// Threads of a block that clears.
const THREADS: u32 = 256;

impl Call {
    /// The same call of a kernel compiled with [`TRACED`], which leaves its times at that address.
    #[must_use]
    pub fn stamped(&self, stamp: u64) -> Call {
        Call { args: self.args.clone().address(stamp), ..self.clone() }
    }
}

fn call(kernel: &'static str, blocks: u32, block: u32, args: Args) -> Call {
    let op = ("cuda/trace.cu", include_str!("trace.cu"));
    let unit = Unit { headers: &[unit::DEVICE], op, defines: Vec::new() };
    Call { unit, kernel, grid: [blocks, 1, 1], block, shared: 0, args }
}

/// Clears `count` stamps and sets both times of the first to its own.
pub fn reset(stamps: u64, count: usize) -> Call {
    let blocks = (count as u32).div_ceil(THREADS);
    call("trace_reset", blocks, THREADS, Args::new().address(stamps).address(count as u64))
}

/// Finds the least difference that the device's clock tells, in ns, and leaves it at an address as `u64`.
pub fn tick(at: u64) -> Call {
    call("trace_tick", 1, 32, Args::new().address(at))
}
