//! Launches of `ssm`.

use amoeba_plan::SsmOp;

use crate::cuda::unit;
use crate::gpu::{Args, Call, Site, Unit};

pub(crate) fn ssm(site: &Site<'_>, op: &SsmOp) -> Call {
    let lanes = op.state.next_power_of_two().min(32);
    let mut args = Args::new().address(site.at.step);
    for buffer in [op.x, op.b, op.c, op.dt, op.out] {
        args = args.place(site.buffer(buffer));
    }
    Call {
        unit: Unit {
            headers: &[unit::DEVICE, ("ssm/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("ssm/kernel.cu", include_str!("kernel.cu")),
            defines: vec![
                ("K_STATE", op.state.to_string()),
                ("K_LANES", lanes.to_string()),
                ("K_PER_STATE", u8::from(op.per_state).to_string()),
            ],
        },
        kernel: "ssm",
        grid: [(op.heads * op.head_dim * lanes).div_ceil(128) as u32, site.rows as u32, 1],
        block: 128,
        shared: 0,
        args: args
            .address(site.vector(Some(op.a_log)))
            .address(site.vector(Some(op.d)))
            .address(site.vector(op.dt_bias))
            .address(site.at.caches[op.cache.0])
            .size(op.heads)
            .size(op.head_dim)
            .size(op.heads / op.groups)
            .float(op.dt_limit.0)
            .float(op.dt_limit.1)
            .size(0),
    }
}
