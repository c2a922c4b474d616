//! Template arguments of `Format` and `Matvec` (quant.cuh, matvec.cuh), and what follows from them.

use amoeba_checkpoint::{Float, Format};

use super::Unsupported;

/// `Format<…>`.
pub(crate) fn format_of(format: Format) -> String {
    let scale_of = |scale| match scale {
        Float::F32 => "SCALE_F32",
        Float::F16 => "SCALE_F16",
        Float::BF16 => "SCALE_BF16",
    };
    let (kind, scale) = match format {
        Format::Dense(Float::BF16) => ("DENSE_BF16", "SCALE_F32"),
        Format::Dense(Float::F16) => ("DENSE_F16", "SCALE_F32"),
        Format::Dense(Float::F32) => ("DENSE_F32", "SCALE_F32"),
        Format::Affine { scale, .. } => ("AFFINE", scale_of(scale)),
        Format::Mxfp4 => ("MXFP4", "SCALE_E8M0"),
        Format::Mxfp8 => ("MXFP8", "SCALE_E8M0"),
        Format::Nvfp4 => ("NVFP4", "SCALE_E4M3"),
    };
    format!("Format<{kind}, {}, {}, {scale}>", format.bits(), format.group())
}

/// How a product is cut up: `Matvec<…>` without its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    format: Format,
    cols: usize,
    /// Columns a lane reads at a time.
    pub lane: usize,
    /// Warps of a block.
    pub warps: usize,
    /// Blocks of K a warp reads at a time.
    pub step: usize,
    /// Matrices that share x.
    matrices: usize,
    /// Matrices side by side.
    repeats: usize,
}

/// Warps that a multiprocessor has registers for, at the 112 or so that a product of one row takes (docs/results/nvrtc.md).
const WARPS_PER_SM: usize = 18;

/// Most dynamic shared memory of a block: what every architecture from 8.0 on has, but for those of consumer cards.
const SHARED_MAX: usize = 99 << 10;

/// Blocks of so many warps that a multiprocessor holds.
fn blocks_per_sm(warps: usize) -> usize {
    (WARPS_PER_SM / warps).max(1)
}

impl Tiling {
    /// Sixteen outputs of `matrices` products of one x, summed over `repeats` matrices; of so many tiles per multiprocessor.
    pub fn new(
        format: Format,
        cols: usize,
        [matrices, repeats]: [usize; 2],
        tiles_per_sm: usize,
    ) -> Result<Tiling, Unsupported> {
        let lane = match format {
            Format::Dense(Float::F32) => 4,
            Format::Dense(_) if cols.is_multiple_of(16) => 16,
            Format::Dense(_) => 4,
            _ => 32,
        };
        if !cols.is_multiple_of(lane.min(16)) {
            return Err(Unsupported(format!(
                "{format} with {cols} columns, no multiple of {}",
                lane.min(16)
            )));
        }
        let blocks = cols.div_ceil(4 * lane) * repeats;
        // Least idle work first, then all tiles on the device at once, then many warps, each with several loads on their way.
        let shapes = (1..=8).flat_map(|warps| [1, 2, 3, 4].map(|step| (warps, step)));
        let cost = |&(warps, step): &(usize, usize)| {
            let padded = blocks.next_multiple_of(warps * step);
            let waves = tiles_per_sm.div_ceil(blocks_per_sm(warps));
            (padded, waves, usize::from(step != 2), 8 - warps)
        };
        let (warps, step) = shapes
            .filter(|(warps, _)| *warps >= 4 || *warps * 2 >= blocks)
            .min_by_key(cost)
            .unwrap_or((8, 2));
        Ok(Tiling { format, cols, lane, warps, step, matrices, repeats })
    }

    /// Bytes of dynamic shared memory for so many rows of x: `Matvec::SHARED_BYTES`.
    pub fn shared(&self, rows: usize) -> usize {
        let block = 4 * self.lane;
        let blocks = self.cols.div_ceil(block) * self.repeats;
        let group = if self.format.is_quantised() { self.format.group() } else { block };
        let parts = 3 * rows;
        let paired = parts.next_multiple_of(2);
        let sharing = (block / group.max(self.lane)).max(1);
        let tiles = (sharing * paired).div_ceil(8);
        let x = blocks * self.lane * parts * 8;
        let sums = if self.format.has_biases() {
            (blocks * block / group * paired * 4).next_multiple_of(16)
        } else {
            0
        };
        x + sums + 2 * self.warps * 16 * self.matrices * if rows == 1 { 1 } else { tiles * 8 } * 4
    }

    /// Blocks that the device holds at once.
    pub fn resident(&self, multiprocessors: u32) -> usize {
        blocks_per_sm(self.warps) * multiprocessors as usize
    }

    /// Rows of x a launch takes at a time, at most 8.
    pub fn rows(&self, rows: usize) -> Result<usize, Unsupported> {
        let wanted = rows.clamp(1, 8).next_power_of_two();
        let fits = [8, 4, 2, 1].into_iter().find(|&rows| rows <= wanted && self.shared(rows) <= SHARED_MAX);
        fits.ok_or_else(|| Unsupported(format!("{} columns do not fit a block's shared memory", self.cols)))
    }
}
