//! Attention and what becomes of queries, keys and values before it.

use super::Operation;
use crate::io::Io;
use crate::program::{BufferId, CacheId, RopeId, WeightId};
use crate::spec::Window;

/// Rotates the heads of `x` in place by the row's position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeOp {
    /// Frequencies.
    pub rope: RopeId,
    /// Heads in `x`.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// First element of a head that turns.
    pub first: usize,
    /// Rotated in place.
    pub x: BufferId,
}

impl Operation for RopeOp {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn io(&self) -> Io {
        Io::default().change(self.x, self.heads * self.head_dim)
    }

    fn details(&self) -> String {
        let from = if self.first > 0 { format!(" from {}", self.first) } else { String::new() };
        format!("rope {} on {} × {}{from}", self.rope.0, self.heads, self.head_dim)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// `x ← x · (1 + scale · ln(1 + ⌊(position + shift) / period⌋))`: sharper attention far into a context (Llama
/// 4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TemperatureOp {
    /// In place.
    pub x: BufferId,
    /// Elements per row.
    pub width: usize,
    /// Factor on the logarithm.
    pub scale: f32,
    /// Positions per step.
    pub period: f32,
    /// Added to the position.
    pub shift: f32,
}

impl Operation for TemperatureOp {
    fn name(&self) -> &'static str {
        "temperature"
    }

    fn io(&self) -> Io {
        Io::default().change(self.x, self.width)
    }

    fn details(&self) -> String {
        format!("× 1 + {} ln(1 + position / {})", self.scale, self.period)
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// Writes the row's keys and values at its position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvAppendOp {
    /// Destination.
    pub cache: CacheId,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a key head.
    pub k_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
    /// `[kv_heads · k_dim]`.
    pub k: BufferId,
    /// `[kv_heads · v_dim]`.
    pub v: BufferId,
}

impl Operation for KvAppendOp {
    fn name(&self) -> &'static str {
        "kv_append"
    }

    fn io(&self) -> Io {
        let io = Io::default().read(self.k, self.kv_heads * self.k_dim);
        io.read(self.v, self.kv_heads * self.v_dim).write_cache(self.cache)
    }

    fn details(&self) -> String {
        String::new()
    }

    fn is_row_work(&self) -> bool {
        true
    }
}

/// Softmax attention of the step's rows over a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOp {
    /// Keys and values.
    pub cache: CacheId,
    /// Queries `[heads · head_dim]`.
    pub q: BufferId,
    /// Output `[heads · v_dim]`.
    pub out: BufferId,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Width of a value head.
    pub v_dim: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// Which of the cached keys are seen; all without.
    pub window: Option<Window>,
    /// Per-head sink logits.
    pub sinks: Option<WeightId>,
    /// `cap·tanh(s/cap)` on scores.
    pub softcap: Option<f32>,
}

impl Operation for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn io(&self) -> Io {
        let io = Io::default().read(self.q, self.heads * self.head_dim);
        let io = io.write(self.out, self.heads * self.v_dim).read_cache(self.cache);
        io.vector(self.sinks, self.heads)
    }

    fn details(&self) -> String {
        let window = match self.window {
            None => String::new(),
            Some(Window::Sliding(width)) => format!(", window {width}"),
            Some(Window::Chunk(width)) => format!(", chunks of {width}"),
        };
        let AttentionOp { heads, kv_heads, head_dim, scale, .. } = self;
        format!("{heads} heads / {kv_heads} kv × {head_dim}, scale {scale}{window}")
    }

    fn is_row_work(&self) -> bool {
        false
    }
}
