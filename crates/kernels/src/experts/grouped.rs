//! Launches of `experts` for many rows: pairs of row and choice, expert by expert.

use amoeba_plan::{ExpertWeights, ExpertsOp, Stage};

use super::cuda::shape;
use crate::activate;
use crate::cuda::gemm::{Gemm, Tiles, row_bytes_max};
use crate::cuda::unit;
use crate::gpu::{Args, Call, Place, Setting, Site, Staged, Unit, Unsupported};

/// Threads of the kernels that are no product.
const THREADS: usize = 256;
/// Fewest pairs of a tile.
const TOKENS_MIN: usize = 16;

/// What the bodies for many rows are made of.
const HEADERS: &[(&str, &str)] = &[
    unit::DEVICE,
    unit::QUANT,
    unit::GEMM,
    unit::ACTIVATE,
    unit::STACK,
    ("experts/grouped.cuh", include_str!("grouped.cuh")),
];

/// Where things lie in scratch.
struct Scratch {
    parts: usize,
    inner_parts: usize,
    inner: usize,
    outer: usize,
    lists: usize,
    counts: usize,
    tiles: usize,
    end: usize,
}

impl Scratch {
    fn new(op: &ExpertsOp, setting: &Setting, rows: usize) -> Scratch {
        let (mut end, pairs) = (0usize, rows * op.top_k);
        let mut take = |bytes: usize| {
            let at = end;
            end = (end + bytes).next_multiple_of(256);
            at
        };
        Scratch {
            parts: take(rows * row_bytes_max(op.hidden, setting)),
            inner_parts: take(pairs * row_bytes_max(op.d_ff, setting)),
            inner: take(pairs * op.d_ff * 4),
            outer: take(pairs * op.hidden * 4),
            lists: take(op.experts * rows * 4),
            counts: take(op.experts * 4),
            tiles: take((1 + op.experts + pairs / TOKENS_MIN) * 8),
            end,
        }
    }
}

/// Parts, lists, inner and outer activations.
pub(crate) fn scratch_bytes(op: &ExpertsOp, setting: &Setting, rows: usize) -> usize {
    Scratch::new(op, setting, rows).end
}

/// A unit and how its two products are cut up.
struct Grouped<'a> {
    site: &'a Site<'a>,
    op: &'a ExpertsOp,
    unit: Unit,
    up: Gemm,
    down: Gemm,
    /// Whether tiles of `up` have outputs of the gate as well.
    joined: bool,
    args: Args,
}

impl<'a> Grouped<'a> {
    /// With the gate as the source calls it, and the projections in the places of gate and up.
    fn new(
        site: &'a Site<'a>,
        op: &'a ExpertsOp,
        (gate, activation): (&str, &str),
        inner: [Option<ExpertWeights>; 2],
        add: (Place, f32),
    ) -> Result<Grouped<'a>, Unsupported> {
        let setting = &site.at.setting;
        let [up, down] = [inner[1].unwrap_or(op.up), op.down].map(|weights| site.matrix(weights.stack));
        let formats = [up.format, down.format];
        let [up, down] = [up, down].map(|matrix| Gemm::new(&matrix, site.rows, Tiles::Many, setting));
        let tokens = up.clone()?.tokens().min(down.clone()?.tokens());
        let (up, down) = (up?.with_tokens(tokens), down?.with_tokens(tokens));
        let mut defines = shape(op, formats, gate, activation);
        defines.push(("K_EXPERTS", op.experts.to_string()));
        defines.extend(up.defines(["K_UP_PARTS", "K_UP_WM", "K_UP_WK", "K_UP_NT", "K_UP_STAGES"]));
        defines.extend(down.defines([
            "K_DOWN_PARTS",
            "K_DOWN_WM",
            "K_DOWN_WK",
            "K_DOWN_NT",
            "K_DOWN_STAGES",
        ]));
        let unit = Unit { headers: HEADERS, op: ("experts/grouped.cu", include_str!("grouped.cu")), defines };
        let args = args(site, op, inner, add);
        Ok(Grouped { site, op, unit, up, down, joined: gate == "GATE_JOINED", args })
    }

    fn call(
        &self,
        (stage, kernel): (Stage, &'static str),
        grid: [usize; 3],
        block: u32,
        shared: usize,
    ) -> Staged {
        let (unit, args) = (self.unit.clone(), self.args.clone());
        let call = Call { unit, kernel, grid: grid.map(|n| n as u32), block, shared: shared as u32, args };
        Staged { stage, call }
    }

    fn prepare(&self) -> Staged {
        let (block, units) = self.up.split();
        let blocks = (block * units).div_ceil(THREADS as u32) as usize * self.site.rows;
        self.call((Stage::Start, "experts_prepare"), [self.op.experts + blocks, 1, 1], THREADS as u32, 0)
    }

    /// Tiles of pairs that there may be: of each expert one that is not full.
    fn tiles(&self) -> usize {
        let pairs = self.site.rows * self.op.top_k;
        self.op.experts.min(pairs) + pairs / self.up.tokens()
    }

    fn up(&self) -> Staged {
        let outputs = if self.joined { 2 * self.op.d_ff } else { self.op.d_ff };
        let grid = [outputs.div_ceil(self.up.outputs()), self.tiles(), 1];
        self.call((Stage::GateUp, "grouped_up"), grid, self.up.threads(), self.up.shared())
    }

    fn down(&self) -> [Staged; 3] {
        let (op, rows) = (self.op, self.site.rows);
        let (block, units) = self.down.split();
        let grid = [op.hidden.div_ceil(self.down.outputs()), self.tiles(), 1];
        [
            self.call((Stage::Inner, "inner_split"), [units as usize, op.top_k, rows], block, 0),
            self.call((Stage::Down, "grouped_down"), grid, self.down.threads(), self.down.shared()),
            self.call(
                (Stage::Combine, "experts_combine"),
                [op.hidden.div_ceil(4 * THREADS), rows, 1],
                THREADS as u32,
                0,
            ),
        ]
    }
}

/// `struct GroupedArgs`.
fn args(site: &Site<'_>, op: &ExpertsOp, inner: [Option<ExpertWeights>; 2], add: (Place, f32)) -> Args {
    let (_, limit, alpha) = activate::cuda::parameters(op.activation);
    let mut args = Args::new().address(site.count());
    for place in [site.buffer(op.x), site.buffer(op.route), site.buffer(op.out), add.0] {
        args = args.place(place);
    }
    for weights in inner.into_iter().chain([Some(op.down)]) {
        args = match weights {
            Some(weights) => args.matrix(&site.matrix(weights.stack)).address(site.vector(weights.bias)),
            None => args.address(0).address(0).address(0).address(0),
        };
    }
    let scratch = Scratch::new(op, &site.at.setting, site.rows);
    let at = |offset: usize| site.at.scratch + offset as u64;
    let args = args.address(at(scratch.parts)).address(at(scratch.inner_parts));
    let args = args.address(at(scratch.inner)).address(at(scratch.outer));
    let args = args.address(at(scratch.lists)).address(at(scratch.counts)).address(site.at.zeroed);
    let args = args.address(at(scratch.tiles)).size(site.rows).size(0);
    args.float(limit).float(alpha).float(add.1).size(0)
}

/// The op; `add` is where its result times a factor is added to as well, or null.
pub(crate) fn experts(
    site: &Site<'_>,
    op: &ExpertsOp,
    add: (Place, f32),
) -> Result<Vec<Staged>, Unsupported> {
    let (activation, ..) = activate::cuda::parameters(op.activation);
    let format = |weights: ExpertWeights| site.matrix(weights.stack).format;
    let mut calls = Vec::new();
    let last = match op.gate.filter(|gate| format(*gate) != format(op.up)) {
        None => {
            let gate = if op.gate.is_some() { "GATE_JOINED" } else { "NO_GATE" };
            Grouped::new(site, op, (gate, activation), [op.gate, Some(op.up)], add)?
        }
        Some(gate) => {
            // Formats differ: the gate first, by itself, with x in parts in its own order.
            let before = Grouped::new(site, op, ("NO_GATE", "RAW"), [None, Some(gate)], add)?;
            calls.extend([before.prepare(), before.up()]);
            Grouped::new(site, op, ("GATE_BEFORE", activation), [None, Some(op.up)], add)?
        }
    };
    calls.extend([last.prepare(), last.up()]);
    calls.extend(last.down());
    Ok(calls)
}
