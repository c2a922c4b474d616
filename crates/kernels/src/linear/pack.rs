//! Kernel order of weights: sixteen rows interleaved, a group's scales and biases after its codes.
//!
//! The unit is 16 rows × one group (64 columns when dense). Lane i of every word belongs to row i, so a dot
//! product needs no horizontal sum, x is broadcast, and a unit is one contiguous read (576 bytes for 4-bit
//! g64). Codes of 3, 5 and 6 bits are split into planes of power-of-two width, which keeps the file's bit
//! count. Columns may be cut into slices, each holding all rows: a worker that owns some columns of `down`
//! reads one contiguous range.

use amoeba_checkpoint::{Format, Matrix};

use crate::memory::Bytes;
use crate::quant::{e2m1, e4m3, e8m0, read_code, read_float};
use crate::simd::LANES;

/// Version of the order of packed bytes. Whoever changes a byte of it raises this, or weights that were
/// packed before and kept in a file would be misread; `tests/packing_version.rs` tells.
pub const PACKING: u32 = 1;
/// Columns of a unit of unquantised weights.
const DENSE_UNIT: usize = 64;

/// One slice of quantised weights: block after block of `units` units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// First byte.
    pub(super) first: usize,
    /// First group of columns.
    pub(super) group: usize,
    /// Units of a block.
    pub(super) units: usize,
}

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

    /// The same for all blocks of a slice of quantised weights.
    pub(super) fn span(&self, slice: usize) -> Span {
        let (start, cols) = self.slice(slice);
        let (group, units) = (start / self.unit_cols(), cols / self.unit_cols());
        Span { first: self.blocks() * group * self.unit_bytes(), group, units }
    }

    /// Bytes of the whole matrix.
    pub fn bytes(&self) -> usize {
        self.blocks() * self.block_bytes(self.cols)
    }

    /// Writes one block of one slice.
    ///
    /// # Panics
    /// If shapes or format differ from the layout's (a caller's bug).
    pub fn pack_piece(&self, matrix: &Matrix<'_>, piece: Piece<'_>) {
        assert_eq!((matrix.rows, matrix.cols, matrix.format), (self.rows, self.cols, self.format));
        self.pack_block(matrix, piece.slice, piece.block, piece.out);
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

    /// Writes one row's share of the high plane of a unit.
    fn pack_high(&self, codes: &[u8], lane: usize, plane: &mut [u8]) {
        let bits = self.format.bits();
        let [low, high] = planes(bits);
        for col in 0..self.unit_cols() {
            let field = read_code(codes, col, bits) >> low;
            let (word, shift) = high_place(low, high, col);
            let to = (word * LANES + lane) * 4;
            let old = u32::from_le_bytes([plane[to], plane[to + 1], plane[to + 2], plane[to + 3]]);
            plane[to..to + 4].copy_from_slice(&(old | field << shift).to_le_bytes());
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
            if below > 0 {
                self.pack_high(codes, lane, &mut unit[at..]);
                at += cols * plane / 8 * LANES;
                continue;
            }
            for word in 0..cols / per_word {
                let to = at + (word * LANES + lane) * 4;
                if plane == bits {
                    // The stream already holds the codes of a word side by side.
                    unit[to..to + 4].copy_from_slice(&codes[word * 4..word * 4 + 4]);
                    continue;
                }
                let packed = (0..per_word).fold(0u32, |packed, i| {
                    packed | (read_code(codes, word * per_word + i, bits) & ((1 << plane) - 1)) << (plane * i)
                });
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

impl Layout {
    /// Exact values of one lane of a block of a slice.
    fn unpack_lane(&self, block: &[u8], lane: usize, out: &mut [f32]) {
        if let Format::Dense(float) = self.format {
            let column = |col: usize| &block[col * LANES * float.bytes()..];
            out.iter_mut().enumerate().for_each(|(col, x)| *x = read_float(column(col), lane, float));
            return;
        }
        let cols = self.unit_cols();
        for (unit, out) in block.chunks_exact(self.unit_bytes()).zip(out.chunks_exact_mut(cols)) {
            self.unpack_unit(unit, lane, out);
        }
    }

    fn unpack_unit(&self, unit: &[u8], lane: usize, out: &mut [f32]) {
        let (cols, bits) = (self.unit_cols(), self.format.bits());
        let [low, high] = planes(bits);
        let scales = LANES * self.format.row_bytes(cols);
        let (scale, bias) = match self.format {
            Format::Affine { scale, .. } => {
                let at = |part: usize| f64::from(read_float(&unit[scales..], part * LANES + lane, scale));
                (at(0), at(1))
            }
            Format::Nvfp4 => (f64::from(e4m3(unit[scales + lane])), 0.0),
            _ => (e8m0(unit[scales + lane]), 0.0),
        };
        for (col, out) in out.iter_mut().enumerate() {
            let field = |plane: usize, from: usize| {
                let word = from + (col * plane / 32 * LANES + lane) * 4;
                read_code(&unit[word..word + 4], col % (32 / plane), plane)
            };
            let mut code = field(low, 0);
            if high > 0 {
                let (word, shift) = high_place(low, high, col);
                let at = cols * low / 8 * LANES + (word * LANES + lane) * 4;
                let packed = u32::from_le_bytes([unit[at], unit[at + 1], unit[at + 2], unit[at + 3]]);
                code |= (packed >> shift & ((1 << high) - 1)) << low;
            }
            let value = match self.format {
                Format::Mxfp8 => f64::from(e4m3(code as u8)),
                Format::Mxfp4 | Format::Nvfp4 => f64::from(e2m1(code)),
                _ => f64::from(code),
            };
            *out = (scale * value + bias) as f32;
        }
    }
}

/// One block of sixteen rows of one slice of one matrix.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Which matrix of a stack.
    pub matrix: usize,
    /// Which slice of its columns.
    pub slice: usize,
    /// Which block of its rows.
    pub block: usize,
    out: &'a mut [u8],
}

/// Word and shift of a column's field in the high plane. A high word serves several low words; its byte b
/// holds the fields of the columns that lie in byte b of those, so that one shift brings both planes side by
/// side.
pub(crate) const fn high_place(low: usize, high: usize, col: usize) -> (usize, usize) {
    let (per_low, steps) = (32 / low, 8 / low);
    let (word, i) = (col / per_low, col % per_low);
    let served = low / high;
    (word / served, 8 * (i / steps) + high * (word % served * steps + i % steps))
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

    /// The memory they lie in.
    pub fn memory(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// Packs one matrix or all experts of a stack.
    pub fn new(layout: Layout, matrices: &[Matrix<'_>]) -> Packed {
        let mut packed = Packed::zeroed(layout, matrices.len());
        for piece in packed.pieces_mut() {
            layout.pack_piece(&matrices[piece.matrix], piece);
        }
        packed
    }

    /// The memory of every block, each to be filled by [`Layout::pack_piece`] on any thread.
    pub fn pieces_mut(&mut self) -> impl Iterator<Item = Piece<'_>> {
        let layout = self.layout;
        let mut rest = self.data.as_mut_slice();
        let experts = rest.len().checked_div(layout.bytes()).unwrap_or(0);
        let places = (0..experts).flat_map(move |matrix| {
            (0..layout.slices())
                .flat_map(move |slice| (0..layout.blocks()).map(move |block| (matrix, slice, block)))
        });
        places.map(move |(matrix, slice, block)| {
            let (out, after) = std::mem::take(&mut rest).split_at_mut(layout.range(slice, block).len());
            rest = after;
            Piece { matrix, slice, block, out }
        })
    }

    /// Writes row `row` of the first matrix as f32; the embedding table is read this way.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        for slice in 0..self.layout.slices() {
            let (start, cols) = self.layout.slice(slice);
            let block = &self.data.as_slice()[self.layout.range(slice, row / LANES)];
            self.layout.unpack_lane(block, row % LANES, &mut out[start..start + cols]);
        }
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

    /// All matrices one after another.
    pub fn data(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// [`Packed::data`], to be filled with what it once held under this layout and [`PACKING`].
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.data.as_mut_slice()
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
