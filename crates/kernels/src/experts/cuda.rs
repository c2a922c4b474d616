//! Launches of `experts`.

use amoeba_plan::{ExpertWeights, ExpertsOp};

use super::grouped;
use crate::activate;
use crate::cuda::fuse::ROWS_MAX as ROWS_FEW;
use crate::cuda::{Args, Call, Place, Setting, Site, Tiling, Unit, Unsupported, format_of, unit};

/// Inner channels of every choice of a few rows, or what the grouped kernels need: those may be taken for few rows, too.
pub(crate) fn scratch_bytes(op: &ExpertsOp, setting: &Setting, rows: usize) -> usize {
    let few = rows.min(ROWS_FEW) * op.top_k * op.d_ff * 4;
    few.max(grouped::scratch_bytes(op, setting, rows.max(ROWS_FEW + 1)))
}

/// `struct ExpertsArgs`, with other projections in the places of gate and up where they run one after the other.
fn args(site: &Site<'_>, op: &ExpertsOp, add: (Place, f32), inner: [Option<ExpertWeights>; 2]) -> Args {
    let (_, limit, alpha) = activate::cuda::parameters(op.activation);
    let mut args = Args::new().address(site.count());
    for buffer in [op.x, op.route, op.out] {
        args = args.place(site.buffer(buffer));
    }
    args = args.place(add.0);
    for weights in inner.into_iter().chain([Some(op.down)]) {
        args = match weights {
            Some(weights) => args.matrix(&site.matrix(weights.stack)).address(site.vector(weights.bias)),
            None => args.address(0).address(0).address(0).address(0),
        };
    }
    args.address(site.at.scratch).float(limit).float(alpha).float(add.1).size(0)
}

fn unit(
    site: &Site<'_>,
    op: &ExpertsOp,
    up: ExpertWeights,
    gate: &str,
    activation: &str,
) -> Result<Experts, Unsupported> {
    let [up_format, down_format] = [up, op.down].map(|weights| site.matrix(weights.stack).format);
    let matrices = 1 + usize::from(gate == "GATE_BESIDE");
    let up = Tiling::new(up_format, op.hidden, [matrices, 1], site.per_sm(op.d_ff, op.top_k))?;
    let down = Tiling::new(down_format, op.d_ff, [1, op.top_k], site.per_sm(op.hidden, 1))?;
    up.rows(1)?;
    down.rows(1)?;
    let defines = vec![
        ("K_UP", format_of(up_format)),
        ("K_DOWN", format_of(down_format)),
        ("K_HIDDEN", op.hidden.to_string()),
        ("K_FF", op.d_ff.to_string()),
        ("K_TOP", op.top_k.to_string()),
        ("K_GATE", gate.to_owned()),
        ("K_ACTIVATION", activation.to_owned()),
        ("K_UP_LANE", up.lane.to_string()),
        ("K_UP_WARPS", up.warps.to_string()),
        ("K_UP_STEP", up.step.to_string()),
        ("K_DOWN_LANE", down.lane.to_string()),
        ("K_DOWN_WARPS", down.warps.to_string()),
        ("K_DOWN_STEP", down.step.to_string()),
    ];
    let headers = &[unit::DEVICE, unit::QUANT, unit::MATVEC, unit::ACTIVATE];
    Ok(Experts {
        unit: Unit { headers, op: ("experts/kernel.cu", include_str!("kernel.cu")), defines },
        up,
        down,
    })
}

/// A unit and how its two products are cut up.
struct Experts {
    unit: Unit,
    up: Tiling,
    down: Tiling,
}

impl Experts {
    fn up(&self, site: &Site<'_>, op: &ExpertsOp, args: Args) -> Call {
        self.call("experts_up", &self.up, op.d_ff, site.rows * op.top_k, args)
    }

    fn down(&self, site: &Site<'_>, op: &ExpertsOp, args: Args) -> Call {
        self.call("experts_down", &self.down, op.hidden, site.rows, args)
    }

    fn call(&self, kernel: &'static str, tiling: &Tiling, outputs: usize, pairs: usize, args: Args) -> Call {
        Call {
            unit: self.unit.clone(),
            kernel,
            grid: [outputs.div_ceil(16) as u32, pairs as u32, 1],
            block: 32 * tiling.warps as u32,
            shared: tiling.shared(1) as u32,
            args,
        }
    }
}

/// The op; `add` is where its result times a factor is added to as well, or null.
pub(crate) fn experts(site: &Site<'_>, op: &ExpertsOp, add: (Place, f32)) -> Result<Vec<Call>, Unsupported> {
    if site.rows > ROWS_FEW {
        return grouped::experts(site, op, add);
    }
    let (activation, ..) = activate::cuda::parameters(op.activation);
    let format = |weights: ExpertWeights| site.matrix(weights.stack).format;
    let Some(gate) = op.gate.filter(|gate| format(*gate) != format(op.up)) else {
        let gate = if op.gate.is_some() { "GATE_BESIDE" } else { "NO_GATE" };
        let unit = unit(site, op, op.up, gate, activation)?;
        let args = args(site, op, add, [op.gate, Some(op.up)]);
        return Ok(vec![unit.up(site, op, args.clone()), unit.down(site, op, args)]);
    };
    // Formats differ: the gate first, by itself.
    let (before, after) =
        (unit(site, op, gate, "NO_GATE", "RAW")?, unit(site, op, op.up, "GATE_BEFORE", activation)?);
    let [gate, up] = [gate, op.up].map(|weights| args(site, op, add, [None, Some(weights)]));
    Ok(vec![before.up(site, op, gate), after.up(site, op, up.clone()), after.down(site, op, up)])
}
