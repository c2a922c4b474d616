//! Launches of `delta_net`.

use amoeba_plan::DeltaNetOp;

use crate::cuda::unit;
use crate::gpu::{Args, Call, Site, Unit};

/// Warps of a block.
const WARPS: usize = 4;
/// Rows of the state that a warp keeps.
const HELD: usize = 4;

pub(crate) fn delta_net(site: &Site<'_>, op: &DeltaNetOp) -> Call {
    let mut args = Args::new().address(site.at.step);
    for buffer in [op.q, op.k, op.v, op.decay, op.beta, op.out] {
        args = args.place(site.buffer(buffer));
    }
    Call {
        unit: Unit {
            headers: &[unit::DEVICE, ("delta_net/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("delta_net/kernel.cu", include_str!("kernel.cu")),
            defines: vec![
                ("K_DIM", op.k_dim.to_string()),
                ("K_V_DIM", op.v_dim.to_string()),
                ("K_PER_CHANNEL", u8::from(op.per_channel).to_string()),
                ("K_WARPS", WARPS.to_string()),
                ("K_HELD", HELD.to_string()),
            ],
        },
        kernel: "delta_net",
        grid: [op.v_dim.div_ceil(WARPS * HELD) as u32, op.v_heads as u32, site.rows as u32],
        block: 32 * WARPS as u32,
        shared: 0,
        args: args
            .address(site.vector(Some(op.a_log)))
            .address(site.vector(Some(op.dt_bias)))
            .address(site.at.caches[op.cache.0])
            .size(op.v_heads)
            .size(op.v_heads / op.k_heads),
    }
}
