//! Ops that read matrices.

use super::Operation;
use crate::io::Io;
use crate::program::{BufferId, WeightId, WeightShape};

/// `out ← scale · table[token]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbedOp {
    /// `[vocab, width]`.
    pub table: WeightId,
    /// Rows of the table.
    pub vocab: usize,
    /// Elements of a row.
    pub width: usize,
    /// Factor.
    pub scale: f32,
    /// `[width]`.
    pub out: BufferId,
}

impl Operation for EmbedOp {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn io(&self) -> Io {
        let table = WeightShape::Matrix(self.vocab, self.width);
        Io::default().write(self.out, self.width).share_of(1.0 / self.vocab as f64, self.table, table)
    }

    fn details(&self) -> String {
        format!("× {}", self.scale)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// `out ← W·x + b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearOp {
    /// `[rows, cols]`.
    pub weight: WeightId,
    /// `[rows]`.
    pub bias: Option<WeightId>,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `[cols]`.
    pub x: BufferId,
    /// `[rows]`; not `x`.
    pub out: BufferId,
}

impl Operation for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn io(&self) -> Io {
        let io = Io::default().read(self.x, self.cols).write(self.out, self.rows);
        io.weight(self.weight, WeightShape::Matrix(self.rows, self.cols)).vector(self.bias, self.rows)
    }

    fn details(&self) -> String {
        String::new()
    }

    fn is_row_work(&self) -> bool {
        false
    }
}

/// `out_h ← W_h · x_h` for every head h.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadLinearOp {
    /// `[heads, rows, cols]`.
    pub weight: WeightId,
    /// Heads.
    pub heads: usize,
    /// Outputs per head.
    pub rows: usize,
    /// Inputs per head.
    pub cols: usize,
    /// `[heads · cols]`.
    pub x: BufferId,
    /// `[heads · rows]`; not `x`.
    pub out: BufferId,
}

impl Operation for HeadLinearOp {
    fn name(&self) -> &'static str {
        "head_linear"
    }

    fn io(&self) -> Io {
        let io = Io::default().read(self.x, self.heads * self.cols).write(self.out, self.heads * self.rows);
        io.weight(self.weight, WeightShape::Stack(self.heads, self.rows, self.cols))
    }

    fn details(&self) -> String {
        String::new()
    }

    fn is_row_work(&self) -> bool {
        false
    }
}
