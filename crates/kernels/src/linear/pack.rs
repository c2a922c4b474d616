//! Kernel order of weights: sixteen rows side by side, a group's scales and biases behind its codes.
//!
//! The unit is 16 rows × one group (64 columns when dense). Lane i of every word belongs to row i, so a dot
//! product needs no horizontal sum, x is broadcast, and a unit is one contiguous read (576 bytes for 4-bit g64).
//! Codes of 3, 5 and 6 bits are split into planes of power-of-two width, which keeps the file's bit count.
//! Columns may be cut into slices, each holding all rows: a worker that owns some columns of `down` reads one
//! contiguous stretch.

use amoeba_checkpoint::{Format, Matrix};

use crate::memory::Bytes;
use crate::quant::read_code;
use crate::simd::LANES;

/// Columns of a unit of unquantised weights.
const DENSE_UNIT: usize = 64;

/// Where everything lies in packed weights of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Stored format; codes keep their bits.
    pub format: Format,
    /// Columns per slice: `cols`, or a multiple of 16 and of [`Layout::unit_cols`].
    pub slice_cols: usize,
}

impl Layout {
    /// One slice: a block of rows is contiguous.
    pub fn whole(rows: usize, cols: usize, format: Format) -> Layout {
        Layout { rows, cols, format, slice_cols: cols }
    }

    /// About `slices` slices, each whole units and whole blocks of sixteen.
    pub fn sliced(rows: usize, cols: usize, format: Format, slices: usize) -> Layout {
        let step = Layout::whole(rows, cols, format).unit_cols().max(LANES);
        Layout { rows, cols, format, slice_cols: cols.div_ceil(slices).next_multiple_of(step).min(cols) }
    }

    /// Columns of a unit.
    pub fn unit_cols(&self) -> usize {
        if self.format.is_quantised() { self.format.group() } else { DENSE_UNIT }
    }

    /// Bytes of a full unit.
    pub fn unit_bytes(&self) -> usize {
        let per_group = self.format.scale_bytes() * if self.format.has_biases() { 2 } else { 1 };
        LANES * (self.format.row_bytes(self.unit_cols()) + per_group)
    }

    /// Blocks of sixteen rows, the last padded with zeros.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Number of slices.
    pub fn slices(&self) -> usize {
        self.cols.div_ceil(self.slice_cols)
    }

    /// First column and number of columns of a slice.
    pub fn slice(&self, slice: usize) -> (usize, usize) {
        let start = slice * self.slice_cols;
        (start, self.slice_cols.min(self.cols - start))
    }

    /// Bytes of one block of a slice `cols` wide.
    fn block_bytes(&self, cols: usize) -> usize {
        if self.format.is_quantised() {
            cols / self.unit_cols() * self.unit_bytes()
        } else {
            LANES * self.format.row_bytes(cols)
        }
    }

    /// Byte range of block `block` of slice `slice`.
    pub fn range(&self, slice: usize, block: usize) -> std::ops::Range<usize> {
        let (start, cols) = self.slice(slice);
        let bytes = self.block_bytes(cols);
        let at = self.blocks() * self.block_bytes(start) + block * bytes;
        at..at + bytes
    }

    /// Bytes of the whole matrix.
    pub fn bytes(&self) -> usize {
        self.blocks() * self.block_bytes(self.cols)
    }

    /// Writes `matrix` in kernel order.
    ///
    /// # Panics
    /// If shapes or format differ from the layout's, or `out` is not [`Layout::bytes`] long (a caller's bug).
    pub fn pack(&self, matrix: &Matrix<'_>, out: &mut [u8]) {
        assert_eq!((matrix.rows, matrix.cols, matrix.format), (self.rows, self.cols, self.format));
        assert_eq!(out.len(), self.bytes());
        for slice in 0..self.slices() {
            for block in 0..self.blocks() {
                let range = self.range(slice, block);
                self.pack_block(matrix, slice, block, &mut out[range]);
            }
        }
    }

    fn pack_block(&self, matrix: &Matrix<'_>, slice: usize, block: usize, out: &mut [u8]) {
        let (start, cols) = self.slice(slice);
        for lane in 0..LANES.min(self.rows - block * LANES) {
            let row = matrix.rows(block * LANES + lane, 1);
            if !self.format.is_quantised() {
                let bytes = self.format.bits() / 8;
                for col in 0..cols {
                    let from = (start + col) * bytes;
                    let to = (col * LANES + lane) * bytes;
                    out[to..to + bytes].copy_from_slice(&row.weight[from..from + bytes]);
                }
                continue;
            }
            let first = start / self.unit_cols();
            for (i, unit) in out.chunks_exact_mut(self.unit_bytes()).enumerate() {
                self.pack_lane(&row, first + i, lane, unit);
            }
        }
    }

    /// Writes one row's share of one quantised unit.
    fn pack_lane(&self, row: &Matrix<'_>, group: usize, lane: usize, unit: &mut [u8]) {
        let (cols, bits) = (self.unit_cols(), self.format.bits());
        let codes = &row.weight[self.format.row_bytes(group * cols)..];
        let mut at = 0;
        let mut below = 0;
        for plane in planes(bits).into_iter().filter(|&plane| plane > 0) {
            let per_word = 32 / plane;
            for word in 0..cols / per_word {
                let packed = (0..per_word).fold(0u32, |packed, i| {
                    let code = read_code(codes, word * per_word + i, bits) >> below & ((1 << plane) - 1);
                    packed | code << (plane * i)
                });
                let to = at + (word * LANES + lane) * 4;
                unit[to..to + 4].copy_from_slice(&packed.to_le_bytes());
            }
            at += cols * plane / 8 * LANES;
            below += plane;
        }
        let bytes = self.format.scale_bytes();
        for part in [row.scales, row.biases] {
            if !part.is_empty() {
                let to = at + lane * bytes;
                unit[to..to + bytes].copy_from_slice(&part[group * bytes..(group + 1) * bytes]);
                at += LANES * bytes;
            }
        }
    }
}

/// Widths of the low and the high plane of a code; 0 for none.
pub(crate) const fn planes(bits: usize) -> [usize; 2] {
    match bits {
        3 => [2, 1],
        5 => [4, 1],
        6 => [4, 2],
        whole => [whole, 0],
    }
}

/// One packed matrix, or a stack of equal ones (experts), in memory of its own.
#[derive(Debug)]
pub struct Packed {
    layout: Layout,
    data: Bytes,
}

impl Packed {
    /// Room for `experts` matrices, zeroed.
    pub fn zeroed(layout: Layout, experts: usize) -> Packed {
        Packed { layout, data: Bytes::zeroed(layout.bytes() * experts) }
    }

    /// Packs one matrix or all experts of a stack.
    pub fn new(layout: Layout, matrices: &[Matrix<'_>]) -> Packed {
        let mut packed = Packed::zeroed(layout, matrices.len());
        for (matrix, out) in matrices.iter().zip(packed.parts_mut()) {
            layout.pack(matrix, out);
        }
        packed
    }

    /// The memory of each matrix, to be filled by [`Layout::pack`].
    pub fn parts_mut(&mut self) -> std::slice::ChunksExactMut<'_, u8> {
        self.data.as_mut_slice().chunks_exact_mut(self.layout.bytes())
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Matrix `expert`.
    pub fn expert(&self, expert: usize) -> Weights<'_> {
        let bytes = self.layout.bytes();
        Weights { layout: &self.layout, bytes: &self.data.as_slice()[expert * bytes..(expert + 1) * bytes] }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.as_slice().len()
    }
}

/// Borrowed packed weights of one matrix.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// Where everything lies.
    pub layout: &'a Layout,
    /// The packed bytes.
    pub bytes: &'a [u8],
}
