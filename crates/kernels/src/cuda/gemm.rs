//! How a product with many rows is cut up: `Gemm<…>` (gemm.cuh) without its format.

use amoeba_checkpoint::{Float, Format};

use crate::gpu::{Matrix, Setting, Unsupported};

/// Most dynamic shared memory of a block: what every architecture from 8.0 on has, but for some of 8.x.
const SHARED_MAX: usize = 99 << 10;
/// Warps along outputs, 32 each.
const WM: usize = 4;
/// Columns of a slab.
const SLAB: usize = 64;

/// How many tiles of full size there are, compared with multiprocessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiles {
    /// More.
    Many,
    /// As many: more warps share one.
    Enough,
    /// Half as many or fewer: they are smaller, too.
    Few,
}

/// Tiles of outputs and rows of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gemm {
    format: Format,
    cols: usize,
    parts: usize,
    /// Warps that take slabs in turn.
    wk: usize,
    /// Rows of x of a tile, in eights.
    nt: usize,
    /// Steps in shared memory.
    stages: usize,
}

/// Parts of x at a weight of that format.
fn parts(format: Option<Format>, setting: &Setting) -> usize {
    let dense = format.is_none_or(|format| !format.is_quantised());
    usize::from(setting.x_terms.clamp(1, 3)) + usize::from(dense && setting.x_terms == 2)
}

/// Bytes of a row of x in parts, at most.
pub(crate) fn row_bytes_max(cols: usize, setting: &Setting) -> usize {
    cols.div_ceil(SLAB) * (parts(None, setting) * 2 * SLAB + 16)
}

impl Gemm {
    /// For steps of at most `rows` rows.
    pub fn new(matrix: &Matrix, rows: usize, tiles: Tiles, setting: &Setting) -> Result<Gemm, Unsupported> {
        let Matrix { format, cols, .. } = *matrix;
        let whole = if format.is_quantised() { format.group() } else { 4 };
        if !cols.is_multiple_of(whole) {
            return Err(Unsupported(format!("{format} with {cols} columns, no multiple of {whole}")));
        }
        let parts = parts(Some(format), setting);
        // Weights of several parts themselves leave no registers for more.
        let wide = matches!(format, Format::Dense(Float::F16 | Float::F32));
        let most = if rows <= 16 || tiles == Tiles::Few || wide { 2 } else { 8 };
        let wk = if tiles != Tiles::Many && cols > SLAB { 2 } else { 1 };
        let shapes = [(wk, 8, 3), (wk, 8, 2), (1, 8, 2), (1, 4, 3), (1, 4, 2), (1, 2, 2)];
        let of = |(wk, nt, stages): (usize, usize, usize)| Gemm {
            format,
            cols,
            parts,
            wk,
            nt: nt.min(most),
            stages,
        };
        let fits = shapes.into_iter().map(of).find(|gemm| gemm.shared() <= SHARED_MAX);
        fits.ok_or_else(|| Unsupported(format!("{format} does not fit a block's shared memory")))
    }

    /// Outputs of a tile.
    pub fn outputs(&self) -> usize {
        32 * WM
    }

    /// Rows of x of a tile.
    pub fn tokens(&self) -> usize {
        8 * self.nt
    }

    /// The same with at most `tokens` rows of x in a tile.
    pub fn with_tokens(self, tokens: usize) -> Gemm {
        Gemm { nt: self.nt.min(tokens / 8), ..self }
    }

    pub fn threads(&self) -> u32 {
        (32 * WM * self.wk) as u32
    }

    fn slabs(&self) -> usize {
        self.cols.div_ceil(SLAB)
    }

    fn record(&self) -> usize {
        self.parts * 2 * SLAB + if self.format.is_quantised() { 16 } else { 0 }
    }

    /// Threads and blocks of `Split` for a row.
    pub fn split(&self) -> (u32, u32) {
        let units = 8 * self.slabs();
        let block = units.next_multiple_of(32).min(256);
        (block as u32, units.div_ceil(block) as u32)
    }

    /// Bytes of dynamic shared memory: `Gemm::SHARED_BYTES`.
    pub fn shared(&self) -> usize {
        let slab = self.outputs() * SLAB * self.format.bits() / 8 + self.tokens() * self.record();
        8 * self.tokens() + self.stages * self.wk * slab
    }

    /// Macros: parts of x, warps along outputs and along K, rows and stages.
    pub fn defines(&self, names: [&'static str; 5]) -> [(&'static str, String); 5] {
        let values = [self.parts, WM, self.wk, self.nt, self.stages];
        [0, 1, 2, 3, 4].map(|i| (names[i], values[i].to_string()))
    }
}
