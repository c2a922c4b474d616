//! Launches of `experts`.

use amoeba_checkpoint::Format;
use amoeba_plan::{ExpertWeights, ExpertsOp, FEW_ROWS_MAX, RouterOp, Score, Stage};

use super::grouped;
use crate::activate;
use crate::cuda::{Tiling, Work, format_of, unit};
use crate::gpu::{Args, Call, Place, Setting, Site, Staged, Unit, Unsupported};

/// Inner channels of every choice of a few rows, or what the grouped kernels need: those may be taken for few
/// rows, too.
pub(crate) fn scratch_bytes(op: &ExpertsOp, setting: &Setting, rows: usize) -> usize {
    let few = rows.min(FEW_ROWS_MAX) * op.top_k * op.d_ff * 4;
    few.max(grouped::scratch_bytes(op, setting, rows.max(FEW_ROWS_MAX + 1)))
}

/// Macros of both ways through the experts; formats are those of up and down.
pub(super) fn shape(
    op: &ExpertsOp,
    [up, down]: [Format; 2],
    gate: &str,
    activation: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("K_UP", format_of(up)),
        ("K_DOWN", format_of(down)),
        ("K_HIDDEN", op.hidden.to_string()),
        ("K_FF", op.d_ff.to_string()),
        ("K_TOP", op.top_k.to_string()),
        ("K_GATE", gate.to_owned()),
        ("K_ACTIVATION", activation.to_owned()),
    ]
}

/// Most experts of a choice that one warp makes: beyond, the launch of a router is quicker.
pub(crate) const CHOICE_MAX: usize = 512;

/// What the bodies for few rows are made of.
const HEADERS: &[(&str, &str)] = &[
    unit::DEVICE,
    unit::QUANT,
    unit::MATVEC,
    unit::ACTIVATE,
    unit::CHOOSE,
    unit::STACK,
    ("experts/kernel.cuh", include_str!("kernel.cuh")),
];

/// The op as it is launched.
struct Launch<'a> {
    site: &'a Site<'a>,
    op: &'a ExpertsOp,
    /// Where the result times a factor is added to as well, or null.
    add: (Place, f32),
    /// Whose choice the kernels make themselves, from the logits.
    router: Option<&'a RouterOp>,
}

impl Launch<'_> {
    /// `struct ExpertsArgs`, with other projections in the places of gate and up where they run one after the
    /// other.
    fn args(&self, inner: [Option<ExpertWeights>; 2]) -> Args {
        let Launch { site, op, add, router } = self;
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
        args = args.address(site.at.scratch).float(limit).float(alpha).float(add.1).size(0);
        args = args.place(site.buffer_or_null(router.map(|router| router.logits)));
        args = args.address(site.vector(router.and_then(|router| router.per_expert)));
        let rule = router.map(|router| &router.rule);
        args.float(rule.and_then(|rule| rule.normalise).unwrap_or(0.0))
            .float(rule.map_or(0.0, |rule| rule.scale))
    }

    fn unit(&self, up: ExpertWeights, gate: &str, activation: &str) -> Result<Experts<'_>, Unsupported> {
        let Launch { site, op, .. } = self;
        let [up_format, down_format] = [up, op.down].map(|weights| site.matrix(weights.stack).format);
        let join = 1 + usize::from(gate == "GATE_JOINED");
        let tiles = op.top_k * op.d_ff.div_ceil(16);
        let full = op.d_ff.is_multiple_of(16);
        let up = Work { format: up_format, cols: op.hidden, join, repeats: 1, tiles, full };
        let tiles = op.hidden.div_ceil(16);
        let (repeats, full) = (op.top_k, op.hidden.is_multiple_of(16));
        let down = Work { format: down_format, cols: op.d_ff, join: 1, repeats, tiles, full };
        let (up, down) = (site.tiling(up, 1)?, site.tiling(down, 1)?);
        let mut defines = shape(op, [up_format, down_format], gate, activation);
        let rule = self.router.map(|router| &router.rule);
        let softmax = rule.is_none_or(|rule| rule.score == Score::Softmax);
        let normalised = rule.is_some_and(|rule| rule.normalise.is_some());
        let two_per_sm = up.fits_two_per_sm() && down.fits_two_per_sm();
        defines.extend([
            ("K_EXPERTS", rule.map_or(0, |_| op.experts).to_string()),
            ("K_SCORE", if softmax { "SOFTMAX" } else { "TOP_K_SOFTMAX" }.to_owned()),
            ("K_NORMALISE", u8::from(normalised).to_string()),
            ("K_TWO_PER_SM", u8::from(two_per_sm).to_string()),
        ]);
        defines.extend(up.defines(["K_UP_LANE", "K_UP_WARPS", "K_UP_STEP", "K_UP_SLOTS", "K_UP_ONCE"]));
        defines.extend(down.defines([
            "K_DOWN_LANE",
            "K_DOWN_WARPS",
            "K_DOWN_STEP",
            "K_DOWN_SLOTS",
            "K_DOWN_ONCE",
        ]));
        let unit = Unit { headers: HEADERS, op: ("experts/kernel.cu", include_str!("kernel.cu")), defines };
        Ok(Experts { unit, site, up, down })
    }
}

/// A unit and how its two products are cut up.
struct Experts<'a> {
    unit: Unit,
    site: &'a Site<'a>,
    up: Tiling,
    down: Tiling,
}

impl Experts<'_> {
    fn up(&self, args: Args) -> Staged {
        Staged { stage: Stage::FusedUp, call: self.call("experts_up", &self.up, true, args) }
    }

    fn down(&self, args: Args) -> Staged {
        Staged { stage: Stage::FusedDown, call: self.call("experts_down", &self.down, false, args) }
    }

    fn call(&self, kernel: &'static str, tiling: &Tiling, fill: bool, args: Args) -> Call {
        let (rows, shared) = (self.site.rows, tiling.shared());
        Call {
            unit: self.unit.clone(),
            kernel,
            grid: [tiling.blocks as u32, rows as u32, 1],
            block: 32 * tiling.warps as u32,
            shared: if rows == 1 { self.site.spread(shared, fill) } else { shared as u32 },
            args,
        }
    }
}

/// The op; `add` is where its result times a factor is added to as well, or null. With `router` that is part
/// of it: for few rows only.
pub(crate) fn experts(
    site: &Site<'_>,
    op: &ExpertsOp,
    add: (Place, f32),
    router: Option<&RouterOp>,
) -> Result<Vec<Staged>, Unsupported> {
    if site.rows > FEW_ROWS_MAX {
        return grouped::experts(site, op, add);
    }
    let launch = Launch { site, op, add, router };
    let (activation, ..) = activate::cuda::parameters(op.activation);
    let Some(gate) = gate_before(site, op) else {
        let gate = if op.gate.is_some() { "GATE_JOINED" } else { "NO_GATE" };
        let (unit, args) = (launch.unit(op.up, gate, activation)?, launch.args([op.gate, Some(op.up)]));
        return Ok(vec![unit.up(args.clone()), unit.down(args)]);
    };
    let (before, after) =
        (launch.unit(gate, "NO_GATE", "RAW")?, launch.unit(op.up, "GATE_BEFORE", activation)?);
    let [gate, up] = [gate, op.up].map(|weights| launch.args([None, Some(weights)]));
    Ok(vec![before.up(gate), after.up(up.clone()), after.down(up)])
}

/// The gate if it runs first, by itself: its format is another than that of up.
fn gate_before(site: &Site<'_>, op: &ExpertsOp) -> Option<ExpertWeights> {
    let format = |weights: ExpertWeights| site.matrix(weights.stack).format;
    op.gate.filter(|gate| format(*gate) != format(op.up))
}
