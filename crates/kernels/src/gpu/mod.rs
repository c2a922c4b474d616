//! What a GPU is to run: ops of the program lowered to kernel launches, as plain data.
//!
//! Nothing here knows a driver: addresses are numbers, a [`Unit`] is a text for a compiler, a [`Call`] names
//! a kernel in it. The bodies of an op's kernels are in `<op>/kernel.cuh`, their entries in `<op>/kernel.cu`,
//! its launches in `<op>/cuda.rs`; device code that they share is in `cuda/`. Start reading at [`lower`].
//!
//! Invariants: activations and sums are f32 or wider; no float atomics, so the same inputs give the same
//! bits; weights lie as in the file. Kernels read the rows of a step from one [`step`](Places::step) and
//! leave rows past the last alone, so a recorded list of launches serves any step of at most as many rows.

mod args;
mod lower;
mod unit;

use amoeba_checkpoint::Format;
use amoeba_plan::CacheKind;

pub use args::Args;
pub use lower::{Staged, Unsupported, capabilities, compact, lower, scratch_bytes};
pub use unit::Unit;

pub(crate) use lower::{Site, misplaced};

/// One launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Where the kernel is.
    pub unit: Unit,
    /// Its name.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The kernel's one parameter, a struct by value.
    pub args: Args,
}

/// Where a buffer lies: rows of f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Of row 0; a multiple of 256.
    pub address: u64,
    /// Elements from one row to the next; a multiple of 16.
    pub stride: usize,
}

/// Where a stored matrix lies, or a stack of them one after the other; addresses are multiples of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Codes, or elements if dense, as in the file.
    pub codes: u64,
    /// Scales as in the file; 0 if dense.
    pub scales: u64,
    /// Biases as in the file; 0 if the format has none.
    pub biases: u64,
    /// How the numbers are stored.
    pub format: Format,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

/// Where a weight lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightPlace {
    /// f32, a shift already added.
    Vector(u64),
    /// A matrix, or a stack with that many rows and columns each.
    Matrix(Matrix),
}

/// Sizes fixed at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Sequences at a time.
    pub slots: usize,
    /// Positions per sequence.
    pub context: usize,
    /// Whether keys and values are stored as f16 rather than f32.
    pub kv_f16: bool,
    /// Streaming multiprocessors of the device: launches are sized to fill them.
    pub multiprocessors: u32,
    /// Compute capability, 90 for 9.0.
    pub arch: u32,
    /// Whether ops may share launches.
    pub fused: bool,
    /// Parts of x in products of more than 8 rows, 1 to 3. With quantised weights they are f16: 3 are all of
    /// an f32, 2 are 22 bits (f32 accuracy in practice), 1 is 11. With dense ones they are bf16, of which 2
    /// are 16 bits: there it is 3 instead; 1 is 8.
    pub x_terms: u8,
}

/// Everything a program touches, by address.
#[derive(Clone, Debug, PartialEq)]
pub struct Places {
    /// The step: `i32` rows, `i32` wanted, 8 bytes unused, then a [`StepRow`] for each row.
    pub step: u64,
    /// By buffer.
    pub buffers: Vec<Place>,
    /// By weight.
    pub weights: Vec<WeightPlace>,
    /// By cache; [`cache_bytes`] each, zero at load.
    pub caches: Vec<u64>,
    /// By rotary table; [`rope_table`] each.
    pub ropes: Vec<u64>,
    /// [`scratch_bytes`] that the calls of all ops share in turn; undefined contents.
    pub scratch: u64,
    /// [`ZEROED_BYTES`], zero at load; who writes there leaves zeros.
    pub zeroed: u64,
    /// Sizes.
    pub setting: Setting,
}

/// Bytes of counters that are zero between calls.
pub const ZEROED_BYTES: usize = 64 << 10;

/// Bytes before the rows of a step.
pub const STEP_HEAD_BYTES: usize = 16;

/// A row of the step as kernels read it: four `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StepRow {
    /// Token id.
    pub token: u32,
    /// Sequence.
    pub slot: u32,
    /// Position in the sequence.
    pub position: u32,
    /// Of entry n below `wanted`: the row whose logits are the n-th asked for.
    pub source: u32,
}

/// Bytes of a cache for all sequences.
pub fn cache_bytes(kind: CacheKind, setting: &Setting) -> usize {
    match kind {
        CacheKind::Kv { kv_heads, k_dim, v_dim } => {
            crate::attention::cuda::cache_bytes(kv_heads, k_dim, v_dim, setting)
        }
        _ => setting.slots * kind.elements_per_sequence() * 4,
    }
}

/// What kernels read of a rotary embedding: the turns per position of each pair, f64.
pub fn rope_table(rope: &amoeba_plan::Rope) -> Vec<u8> {
    rope.frequencies.iter().flat_map(|f| (f / std::f64::consts::TAU).to_le_bytes()).collect()
}
