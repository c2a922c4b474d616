//! The decode program: a typed, printable list of operations over named buffers. Every backend runs this
//! list.

use std::fmt;

use amoeba_checkpoint::Checkpoint;

use crate::spec::RopeSpec;
use crate::{Op, Part};

/// Index of a weight in [`Plan::weights`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub usize);

/// Index of a buffer in [`Plan::buffers`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// Index of a cache in [`Plan::caches`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheId(pub usize);

/// Index of a rotary table in [`Plan::ropes`](crate::Plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RopeId(pub usize);

/// A tensor the program reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Matrices and stacks: path without `.weight`. Vectors: the full tensor name.
    pub path: String,
    /// Stacks: path with `{}` for the expert where files hold experts apart.
    pub each: Option<String>,
    /// What the program expects.
    pub shape: WeightShape,
    /// Vectors: added to every element of the file's.
    pub shift: f32,
}

impl Weight {
    /// The vector as the program expects it; `None` for matrices and stacks.
    ///
    /// # Errors
    /// It is missing, of another size, or no float tensor.
    pub fn read_vector(&self, checkpoint: &Checkpoint) -> Result<Option<Vec<f32>>, amoeba_checkpoint::Error> {
        let WeightShape::Vector(len) = self.shape else { return Ok(None) };
        let mut values = checkpoint.vector(&self.path, len)?;
        if self.shift != 0.0 {
            values.iter_mut().for_each(|value| *value += self.shift);
        }
        Ok(Some(values))
    }
}

/// Expected shape of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightShape {
    /// `len` floats.
    Vector(usize),
    /// `[rows, cols]`, possibly quantised.
    Matrix(usize, usize),
    /// `[experts, rows, cols]`, possibly quantised.
    Stack(usize, usize, usize),
}

impl WeightShape {
    /// Number of parameters.
    pub const fn elements(self) -> usize {
        match self {
            WeightShape::Vector(len) => len,
            WeightShape::Matrix(rows, cols) => rows * cols,
            WeightShape::Stack(experts, rows, cols) => experts * rows * cols,
        }
    }
}

/// A buffer of f32, one row per token of the step.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Name in dumps.
    pub name: &'static str,
    /// f32 per row.
    pub width: usize,
    /// What they are.
    pub kind: BufferKind,
}

/// What a buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BufferKind {
    /// Numbers.
    #[default]
    Values,
    /// A choice of experts: the first half of a row are indices (exact in f32), ascending, the second their
    /// weights.
    Route,
}

/// State that outlives a step, per sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// Layer it belongs to.
    pub layer: usize,
    /// What it holds.
    pub kind: CacheKind,
}

/// Kinds of cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// Keys and values per position.
    Kv {
        /// Key/value heads.
        kv_heads: usize,
        /// Width of a key head.
        k_dim: usize,
        /// Width of a value head.
        v_dim: usize,
    },
    /// The last inputs of a causal convolution.
    Conv {
        /// Channels.
        channels: usize,
        /// Inputs kept: one less than the kernel is wide.
        taps: usize,
    },
    /// The matrices of a recurrence, one per head; f32, whatever keys and values are stored as.
    State {
        /// Heads.
        heads: usize,
        /// Rows of a matrix.
        rows: usize,
        /// Columns of a matrix.
        cols: usize,
    },
}

impl CacheKind {
    /// Elements per position.
    pub const fn elements_per_position(self) -> usize {
        match self {
            CacheKind::Kv { kv_heads, k_dim, v_dim } => kv_heads * (k_dim + v_dim),
            CacheKind::Conv { .. } | CacheKind::State { .. } => 0,
        }
    }

    /// Elements per sequence, however long it is.
    pub const fn elements_per_sequence(self) -> usize {
        match self {
            CacheKind::Kv { .. } => 0,
            CacheKind::Conv { channels, taps } => channels * taps,
            CacheKind::State { heads, rows, cols } => heads * rows * cols,
        }
    }

    /// Whether it sums up the past, so that a sequence can only continue from its last position or start
    /// anew.
    pub const fn recurrent(self) -> bool {
        self.elements_per_sequence() > 0
    }
}

/// One line of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Layer it belongs to; `None` before the first and after the last.
    pub layer: Option<usize>,
    /// The part of the model whose weights it multiplies or whose caches it works on; norms, copies and
    /// elementwise steps count as [`Part::Other`], whatever they serve.
    pub part: Part,
    /// The operation.
    pub op: Op,
}

/// Rotary tables, shared by the layers that have the same.
pub type Rope = RopeSpec;

impl fmt::Display for WeightShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightShape::Vector(len) => write!(f, "[{len}]"),
            WeightShape::Matrix(rows, cols) => write!(f, "[{rows}, {cols}]"),
            WeightShape::Stack(experts, rows, cols) => write!(f, "[{experts}, {rows}, {cols}]"),
        }
    }
}
