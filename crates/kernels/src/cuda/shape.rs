//! Template arguments of `Format` and `Matvec` (quant.cuh, matvec.cuh), and what follows from them.

use amoeba_checkpoint::{Float, Format};

use crate::gpu::Unsupported;

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

/// What a product is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub format: Format,
    /// Inputs.
    pub cols: usize,
    /// Matrices of the same inputs whose outputs belong together: a gate and its up.
    pub join: usize,
    /// Matrices side by side, added up.
    pub repeats: usize,
    /// Tiles of sixteen outputs (joined ones count once) of all blocks of a row.
    pub tiles: usize,
    /// Whether all have sixteen outputs.
    pub full: bool,
}

/// How a product is cut up: `Matvec<…>` for a few rows of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    work: Work,
    /// Columns a lane reads at a time.
    pub lane: usize,
    /// Warps of a block.
    pub warps: usize,
    /// Blocks of K a warp has on their way.
    pub step: usize,
    /// Joined tiles a block takes at a time.
    pub slots: usize,
    /// Blocks.
    pub blocks: usize,
    /// Rows of x a launch takes at a time, at most 8.
    pub rows: usize,
}

/// Warps of a block, where there is work for all: a block of one launch and one of the next share a
/// multiprocessor.
const WARPS: usize = 8;

/// Registers of a lane for codes and scales on their way, for sums, and for x before it is staged.
const REGISTERS: usize = 80;

/// Most joined tiles a block takes at a time.
const SLOTS_MAX: usize = 4;

/// Most dynamic shared memory of a block: what every architecture from 8.0 on has, but for those of consumer
/// cards.
const SHARED_MAX: usize = 99 << 10;

impl Tiling {
    /// For steps of at most `rows` rows: one block per multiprocessor, as many tiles of it at once as
    /// registers hold on their way.
    pub fn new(work: Work, rows: usize, multiprocessors: u32) -> Result<Tiling, Unsupported> {
        let Work { format, cols, tiles, .. } = work;
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
        // Where one round is not enough by far, two blocks hide each other's instructions; nothing is read
        // ahead there.
        let multiprocessors = multiprocessors as usize;
        let blocks = tiles.min(if tiles > 4 * SLOTS_MAX * multiprocessors { 2 } else { 1 } * multiprocessors);
        let wanted = rows.clamp(1, 8).next_power_of_two();
        let all_k = cols.div_ceil(4 * lane) * work.repeats;
        let turns = all_k.div_ceil(WARPS);
        for rows in [8, 4, 2, 1].into_iter().filter(|&rows| rows <= wanted) {
            let cut = |slots| {
                let mut tiling =
                    Tiling { work, lane, warps: all_k.div_ceil(turns), step: 1, slots, blocks, rows };
                // Even shares of K; what does not fit the registers comes in equal steps.
                let fits = |steps: &usize| tiling.registers(turns.div_ceil(*steps)) <= REGISTERS;
                tiling.step = turns.div_ceil((1..=turns).find(fits).unwrap_or(turns));
                tiling
            };
            let fits = |tiling: &Tiling| {
                let small = tiling.slots == 1 || tiling.registers(tiling.step) <= REGISTERS;
                small && tiling.shared() <= SHARED_MAX
            };
            // All tiles at once if that can be, else most codes on their way.
            let most = tiles.div_ceil(blocks).min(SLOTS_MAX);
            let best = (1..=most).map(cut).filter(fits).max_by_key(|t| (t.once(), t.slots * t.step, t.slots));
            if let Some(tiling) = best {
                return Ok(tiling);
            }
        }
        Err(Unsupported(format!("{cols} columns do not fit a block's shared memory")))
    }

    /// Tiles of D that hold the parts of all rows, for all groups of a block of K: `Matvec::TILES`.
    fn tiles_of_d(&self) -> usize {
        (self.sharing() * self.parts()).div_ceil(8)
    }

    fn parts(&self) -> usize {
        (3 * self.rows).next_multiple_of(2)
    }

    /// Groups that a segment of a block of K meets, and columns of a group.
    fn sharing(&self) -> usize {
        (4 * self.lane / self.group().max(self.lane)).max(1)
    }

    fn group(&self) -> usize {
        if self.work.format.is_quantised() { self.work.format.group() } else { 4 * self.lane }
    }

    /// Registers of `step` blocks of K in flight, and of the sums.
    fn registers(&self, step: usize) -> usize {
        let Work { format, join, .. } = self.work;
        let segments = self.lane / self.group().min(self.lane);
        let numbers = usize::from(format.is_quantised()) + usize::from(format.has_biases());
        let numbers = if self.work.full { 0 } else { 2 * segments * self.tiles_of_d() * numbers };
        let item = 2 * self.lane * format.bits() / 32 + numbers;
        let sums = if self.rows == 1 { 2 } else { 4 * self.tiles_of_d() };
        let x = (self.rows * self.work.cols * self.work.repeats)
            .div_ceil(32 * self.warps)
            .next_multiple_of(8)
            .min(32);
        x + self.slots * join * (step * item + sums)
    }

    /// Bytes of dynamic shared memory: `Matvec::SHARED_BYTES`.
    pub fn shared(&self) -> usize {
        let block = 4 * self.lane;
        let blocks = self.work.cols.div_ceil(block) * self.work.repeats;
        let x = (blocks + 1) * self.lane * 3 * self.rows * 8;
        let numbers =
            usize::from(self.work.format.is_quantised()) + usize::from(self.work.format.has_biases());
        let groups = numbers * (blocks * block / self.group() * self.parts() * 4).next_multiple_of(16);
        let width = if self.rows == 1 { 1 } else { self.tiles_of_d() * 8 };
        x + groups + self.scales() + 2 * self.warps * 16 * self.slots * self.work.join * width * 4
    }

    /// Bytes of scales and biases in shared memory.
    fn scales(&self) -> usize {
        let Work { format, cols, join, repeats, full, .. } = self.work;
        if !full || !format.is_quantised() {
            return 0;
        }
        let row = cols / format.group() * format.scale_bytes();
        let padded = if row.is_multiple_of(32) { row + 16 } else { row };
        let kinds = 1 + usize::from(format.has_biases());
        self.slots * join * repeats * kinds * 16 * padded * if self.once() { 1 } else { 2 }
    }

    /// Whether the tiles that blocks take at once are all.
    pub fn once(&self) -> bool {
        self.work.tiles <= self.blocks * self.slots
    }

    /// Whether two blocks, of this launch and the next, find registers on one multiprocessor. Measured, not
    /// counted: codes that take more unpacking, or a share of K that is not whole, spilled
    /// (`docs/results/nvrtc.md`).
    pub fn fits_two_per_sm(&self) -> bool {
        let Work { format, cols, repeats, .. } = self.work;
        let plain = matches!(format, Format::Affine { bits: 4, group: 64.., .. });
        let whole = (cols.div_ceil(4 * self.lane) * repeats).is_multiple_of(self.warps * self.step);
        plain && whole && self.rows == 1
    }

    /// Macros for the product of that name: `K_<NAME>LANE`, …
    pub fn defines(
        &self,
        [lane, warps, step, slots, once]: [&'static str; 5],
    ) -> Vec<(&'static str, String)> {
        vec![
            (lane, self.lane.to_string()),
            (warps, self.warps.to_string()),
            (step, self.step.to_string()),
            (slots, (self.slots * self.work.join).to_string()),
            (once, u8::from(self.once()).to_string()),
        ]
    }
}
