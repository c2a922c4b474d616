//! Launches of `experts`.

use amoeba_plan::{ExpertWeights, ExpertsOp};

use crate::activate;
use crate::cuda::{Args, Call, Place, Site, Tiling, Unit, Unsupported, format_of, unit};

/// Inner channels of every choice of every row.
pub(crate) fn scratch_bytes(op: &ExpertsOp, rows: usize) -> usize {
    rows * op.top_k * op.d_ff * 4
}

/// `struct Stack`.
fn stack(site: &Site<'_>, args: Args, weights: Option<ExpertWeights>) -> Args {
    match weights {
        Some(weights) => args.matrix(&site.matrix(weights.stack)).address(site.vector(weights.bias)),
        None => args.address(0).address(0).address(0).address(0),
    }
}

pub(crate) fn experts(site: &Site<'_>, op: &ExpertsOp) -> Result<Vec<Call>, Unsupported> {
    let [up_format, down_format] = [op.up, op.down].map(|weights| site.matrix(weights.stack).format);
    let gate = op.gate.map(|gate| site.matrix(gate.stack).format);
    if gate.is_some_and(|gate| gate != up_format) {
        return Err(Unsupported(format!("gate and up of different formats, up {up_format}")));
    }
    let up = Tiling::new(up_format, op.hidden, 1 + usize::from(gate.is_some()), 1)?;
    let down = Tiling::new(down_format, op.d_ff, 1, op.top_k)?;
    let (activation, limit, alpha) = activate::cuda::parameters(op.activation);
    let [up_shared, down_shared] = [up, down].map(|tiling| tiling.shared(1));
    up.rows(1)?;
    down.rows(1)?;
    let mut args = Args::new().address(site.count());
    for buffer in [op.x, op.route, op.out] {
        args = args.place(site.buffer(buffer));
    }
    args = args.place(Place::default());
    for weights in [op.gate, Some(op.up), Some(op.down)] {
        args = stack(site, args, weights);
    }
    let args = args.address(site.at.scratch).float(limit).float(alpha).float(0.0).size(0);
    let unit = Unit {
        headers: &[unit::DEVICE, unit::QUANT, unit::MATVEC, unit::ACTIVATE],
        op: ("experts/kernel.cu", include_str!("kernel.cu")),
        defines: vec![
            ("K_UP", format_of(up_format)),
            ("K_DOWN", format_of(down_format)),
            ("K_HIDDEN", op.hidden.to_string()),
            ("K_FF", op.d_ff.to_string()),
            ("K_TOP", op.top_k.to_string()),
            ("K_GATED", u8::from(gate.is_some()).to_string()),
            ("K_ACTIVATION", activation.to_owned()),
            ("K_UP_LANE", up.lane.to_string()),
            ("K_UP_WARPS", up.warps.to_string()),
            ("K_UP_STEP", up.step.to_string()),
            ("K_DOWN_LANE", down.lane.to_string()),
            ("K_DOWN_WARPS", down.warps.to_string()),
            ("K_DOWN_STEP", down.step.to_string()),
        ],
    };
    let call = |kernel, outputs: usize, pairs: usize, warps: usize, shared: usize| Call {
        unit: unit.clone(),
        kernel,
        grid: [outputs.div_ceil(16) as u32, pairs as u32, 1],
        block: 32 * warps as u32,
        shared: shared as u32,
        args: args.clone(),
    };
    Ok(vec![
        call("experts_up", op.d_ff, site.rows * op.top_k, up.warps, up_shared),
        call("experts_down", op.hidden, site.rows, down.warps, down_shared),
    ])
}
