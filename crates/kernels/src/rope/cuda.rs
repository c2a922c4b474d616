//! Launches of `rope`.

use amoeba_plan::RopeOp;

use crate::cuda::unit;
use crate::gpu::{Args, Call, Site, Unit};

pub(crate) fn rope(site: &Site<'_>, op: &RopeOp) -> Call {
    let RopeOp { rope, heads, head_dim, first, x } = *op;
    let spec = &site.plan.ropes[rope.0];
    let half = spec.frequencies.len();
    Call {
        unit: Unit {
            headers: &[unit::DEVICE, unit::TURN, ("rope/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("rope/kernel.cu", include_str!("kernel.cu")),
            defines: Vec::new(),
        },
        kernel: "rope",
        grid: [(heads * half).div_ceil(128) as u32, site.rows as u32, 1],
        block: 128,
        shared: 0,
        args: Args::new()
            .address(site.count())
            .address(site.at.step)
            .place(site.buffer(x))
            .address(site.at.ropes[rope.0])
            .size(heads)
            .size(head_dim)
            .size(first)
            .size(half)
            .size(usize::from(spec.interleaved))
            .float(spec.amplitude),
    }
}
