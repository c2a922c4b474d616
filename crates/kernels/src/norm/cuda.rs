//! Launches of `norm`.

use amoeba_plan::{NormKind, NormOp};

use crate::cuda::unit;
use crate::gpu::{Args, Call, Site, Unit};

pub(crate) fn norm(site: &Site<'_>, op: &NormOp) -> Call {
    let heads = op.dim <= 256;
    let threads = if heads { 256 } else { op.dim.div_ceil(4).next_multiple_of(32).min(512) };
    Call {
        unit: Unit {
            headers: &[unit::DEVICE, ("norm/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("norm/kernel.cu", include_str!("kernel.cu")),
            defines: Vec::new(),
        },
        kernel: if heads { "norm_heads" } else { "norm_rows" },
        grid: [if heads { op.chunks.div_ceil(8) } else { op.chunks } as u32, site.rows as u32, 1],
        block: threads as u32,
        shared: 0,
        args: Args::new()
            .address(site.count())
            .place(site.buffer(op.x))
            .place(site.buffer(op.out))
            .address(site.vector(op.weight))
            .address(site.vector(op.bias))
            .size(op.chunks)
            .size(op.dim)
            .size(usize::from(op.kind == NormKind::Layer))
            .size(usize::from(op.per_chunk))
            .float(op.eps)
            .float(op.scale),
    }
}
