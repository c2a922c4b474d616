//! How the numbers of one matrix are stored: unquantised floats or one of MLX's packed layouts.

use std::fmt;

/// An unquantised element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
}

impl Float {
    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::BF16 => 2,
        }
    }
}

/// Storage format of one matrix. Codes of a row are one little-endian bit stream, lowest bit first:
/// code `i` is stream bits `[i·bits, (i+1)·bits)`, no padding; groups follow one another along the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Not quantised.
    Dense(Float),
    /// `w = scale·code + bias`, code unsigned; one scale and one bias of type `scale` per group.
    Affine {
        /// 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// 32, 64 or 128 columns.
        group: u16,
        /// Element type of scales and biases.
        scale: Float,
    },
    /// E2M1 codes, groups of 32, one power-of-two scale byte `2^(s-127)` (OCP MX).
    Mxfp4,
    /// E4M3 codes, groups of 32, one power-of-two scale byte (OCP MX).
    Mxfp8,
    /// E2M1 codes, groups of 16, one E4M3 scale byte (NVFP4 without a global scale).
    Nvfp4,
}

impl Format {
    /// Bits per stored code (element bits when dense).
    pub const fn bits(self) -> usize {
        match self {
            Format::Dense(f) => f.bytes() * 8,
            Format::Affine { bits, .. } => bits as usize,
            Format::Mxfp4 | Format::Nvfp4 => 4,
            Format::Mxfp8 => 8,
        }
    }

    /// Columns that share a scale; 1 when dense.
    pub const fn group(self) -> usize {
        match self {
            Format::Dense(_) => 1,
            Format::Affine { group, .. } => group as usize,
            Format::Mxfp4 | Format::Mxfp8 => 32,
            Format::Nvfp4 => 16,
        }
    }

    /// Bytes of one scale (and of one bias where there is one); 0 when dense.
    pub const fn scale_bytes(self) -> usize {
        match self {
            Format::Dense(_) => 0,
            Format::Affine { scale, .. } => scale.bytes(),
            Format::Mxfp4 | Format::Mxfp8 | Format::Nvfp4 => 1,
        }
    }

    /// True when a bias per group is stored.
    pub const fn has_biases(self) -> bool {
        matches!(self, Format::Affine { .. })
    }

    /// True for every format but [`Format::Dense`].
    pub const fn is_quantised(self) -> bool {
        !matches!(self, Format::Dense(_))
    }

    /// Bytes of the codes of one row of `cols` columns.
    pub const fn row_bytes(self, cols: usize) -> usize {
        cols * self.bits() / 8
    }

    /// All bytes a `rows × cols` matrix occupies: codes, scales, biases.
    pub const fn matrix_bytes(self, rows: usize, cols: usize) -> usize {
        let groups = if self.is_quantised() { cols / self.group() } else { 0 };
        let per_group = self.scale_bytes() * if self.has_biases() { 2 } else { 1 };
        rows * (self.row_bytes(cols) + groups * per_group)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Dense(Float::F32) => f.write_str("f32"),
            Format::Dense(Float::F16) => f.write_str("f16"),
            Format::Dense(Float::BF16) => f.write_str("bf16"),
            Format::Affine { bits, group, .. } => write!(f, "q{bits}g{group}"),
            Format::Mxfp4 => f.write_str("mxfp4"),
            Format::Mxfp8 => f.write_str("mxfp8"),
            Format::Nvfp4 => f.write_str("nvfp4"),
        }
    }
}
