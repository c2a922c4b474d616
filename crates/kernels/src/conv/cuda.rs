//! Launches of `conv`.

use amoeba_plan::ConvOp;

use crate::cuda::unit;
use crate::gpu::{Args, Call, Site, Unit};

pub(crate) fn conv(site: &Site<'_>, op: &ConvOp) -> Call {
    Call {
        unit: Unit {
            headers: &[unit::DEVICE, ("conv/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("conv/kernel.cu", include_str!("kernel.cu")),
            defines: vec![("K_TAPS", op.taps.to_string())],
        },
        kernel: "conv",
        grid: [op.channels.div_ceil(128) as u32, site.rows as u32, 1],
        block: 128,
        shared: 0,
        args: Args::new()
            .address(site.at.step)
            .place(site.buffer(op.x))
            .place(site.buffer(op.out))
            .address(site.vector(Some(op.weight)))
            .address(site.vector(op.bias))
            .address(site.at.caches[op.cache.0])
            .size(op.channels)
            .size(usize::from(op.silu)),
    }
}
