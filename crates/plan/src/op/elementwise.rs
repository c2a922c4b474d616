//! Norms, copies, activations, sums and factors.

use super::Operation;
use crate::io::{Io, Region};
use crate::program::{BufferId, WeightId};
use crate::spec::{Activation, GateKind, NormKind};

/// `out ← norm(x)`, chunk by chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormOp {
    /// Rms or layer norm.
    pub kind: NormKind,
    /// Learned scale, `[dim]`, or `[chunks · dim]` if `per_chunk`.
    pub weight: Option<WeightId>,
    /// Learned offset, like the scale.
    pub bias: Option<WeightId>,
    /// Whether each chunk has weights of its own.
    pub per_chunk: bool,
    /// Added to the mean square (or variance).
    pub eps: f32,
    /// Factor on the result.
    pub scale: f32,
    /// Independent chunks per row (heads; 1 for the whole row).
    pub chunks: usize,
    /// Width of a chunk.
    pub dim: usize,
    /// Input.
    pub x: BufferId,
    /// Output; may be the input.
    pub out: BufferId,
}

impl Operation for NormOp {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn io(&self) -> Io {
        let width = self.chunks * self.dim;
        let len = if self.per_chunk { width } else { self.dim };
        let io = Io::default().read(self.x, width).write(self.out, width);
        io.vector(self.weight, len).vector(self.bias, len)
    }

    fn details(&self) -> String {
        let weight = if self.weight.is_some() { "" } else { ", no weight" };
        format!("{:?} {} × {} eps {:e}{weight}", self.kind, self.chunks, self.dim, self.eps)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// Parts of a buffer: of head h the elements from `first + h · stride` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strided {
    /// The buffer.
    pub buffer: BufferId,
    /// First element of the first head.
    pub first: usize,
    /// From one head to the next; 0 takes the same elements for all.
    pub stride: usize,
}

/// Copies `len` elements of each of some heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyOp {
    /// From.
    pub x: Strided,
    /// To; another buffer, or elements apart from those read.
    pub out: Strided,
    /// Heads.
    pub heads: usize,
    /// Elements per head.
    pub len: usize,
}

impl Operation for CopyOp {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn io(&self) -> Io {
        let region = |Strided { buffer, first, stride }| Region {
            buffer,
            first,
            stride,
            heads: self.heads,
            len: self.len,
        };
        Io::default().read_region(region(self.x)).write_region(region(self.out))
    }

    fn details(&self) -> String {
        String::new()
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// `out ← act(gate, up)`, elementwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivateOp {
    /// Which.
    pub activation: Activation,
    /// Gate branch.
    pub gate: Option<BufferId>,
    /// Up branch.
    pub up: BufferId,
    /// Result.
    pub out: BufferId,
    /// Elements per row.
    pub width: usize,
}

impl Operation for ActivateOp {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn io(&self) -> Io {
        let io = match self.gate {
            Some(gate) => Io::default().read(gate, self.width),
            None => Io::default(),
        };
        io.read(self.up, self.width).write(self.out, self.width)
    }

    fn details(&self) -> String {
        format!("{:?} × {}", self.activation, self.width)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// `x_h ← f(gate_h) · x_h` for every head h.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadGateOp {
    /// `f`.
    pub kind: GateKind,
    /// `[heads]`.
    pub gate: BufferId,
    /// Heads.
    pub heads: usize,
    /// Scaled in place.
    pub x: BufferId,
    /// Elements per head.
    pub width: usize,
}

impl Operation for HeadGateOp {
    fn name(&self) -> &'static str {
        "head_gate"
    }

    fn io(&self) -> Io {
        Io::default().change(self.x, self.heads * self.width).read(self.gate, self.heads)
    }

    fn details(&self) -> String {
        format!("{:?}, {} heads", self.kind, self.heads)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// `x ← x + scale · y`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddOp {
    /// Accumulator.
    pub x: BufferId,
    /// Addend.
    pub y: BufferId,
    /// Factor on `y`.
    pub scale: f32,
    /// Elements per row.
    pub width: usize,
}

impl Operation for AddOp {
    fn name(&self) -> &'static str {
        "add"
    }

    fn io(&self) -> Io {
        Io::default().change(self.x, self.width).read(self.y, self.width)
    }

    fn details(&self) -> String {
        if self.scale == 1.0 { String::new() } else { format!("addend × {}", self.scale) }
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// `x ← cap·tanh(scale·by·x/cap)`, or `scale·by·x` without a cap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleOp {
    /// In place.
    pub x: BufferId,
    /// Factor.
    pub scale: f32,
    /// Learned factor `[1]`.
    pub by: Option<WeightId>,
    /// Soft cap.
    pub softcap: Option<f32>,
    /// Elements per row.
    pub width: usize,
}

impl Operation for ScaleOp {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn io(&self) -> Io {
        Io::default().change(self.x, self.width).vector(self.by, 1)
    }

    fn details(&self) -> String {
        let cap = self.softcap.map_or(String::new(), |cap| format!(", cap {cap}"));
        format!("× {}{cap}", self.scale)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}
