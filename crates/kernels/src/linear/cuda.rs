//! Launches of `linear`.

use amoeba_plan::{BufferId, FEW_ROWS_MAX, HeadLinearOp, LinearOp, NormOp};

use super::gemm;
use crate::cuda::{Tiling, Work, format_of, unit};
use crate::gpu::{Args, Call, Matrix, Place, Site, Unit, Unsupported};

/// One product.
pub(crate) struct Product {
    pub matrix: Matrix,
    /// Address of the bias, or null.
    pub bias: u64,
    pub out: Place,
    /// Where the result times a factor is added to as well; null if nowhere.
    pub add: (Place, f32),
}

impl Product {
    /// Of an op, added to nothing else.
    pub fn new(site: &Site<'_>, op: &LinearOp) -> Product {
        let (matrix, bias, out) = (site.matrix(op.weight), site.vector(op.bias), site.buffer(op.out));
        Product { matrix, bias, out, add: (Place::default(), 0.0) }
    }

    /// `struct Product`.
    pub fn args(&self, args: Args, first: usize) -> Args {
        let args = args.matrix(&self.matrix).address(self.bias).place(self.out).place(self.add.0);
        args.size(self.matrix.rows).size(first).float(self.add.1).size(0)
    }
}

/// Products that share a launch.
pub(crate) const PRODUCTS_MAX: usize = 4;

pub(crate) fn linear(site: &Site<'_>, op: &LinearOp) -> Result<Vec<Call>, Unsupported> {
    products(site, op.x, &[Product::new(site, op)], None)
}

/// A product per head.
pub(crate) fn head_linear(site: &Site<'_>, op: &HeadLinearOp) -> Result<Vec<Call>, Unsupported> {
    let HeadLinearOp { weight, heads, rows: outputs, cols, x, out } = *op;
    let matrix = Matrix { rows: outputs, cols, ..site.matrix(weight) };
    if site.rows > FEW_ROWS_MAX {
        let product = Product { matrix, bias: 0, out: site.buffer(out), add: (Place::default(), 0.0) };
        return Ok(gemm::launches(site, x, &[&product], heads, None)?.to_vec());
    }
    // A block per tile: there are heads to fill the device.
    let tiles = outputs.div_ceil(16);
    let full = outputs.is_multiple_of(16);
    let work = Work { format: matrix.format, cols, join: 1, repeats: 1, tiles, full };
    let tiling = Tiling::new(work, site.rows, tiles as u32)?;
    let args =
        Args::new().address(site.count()).matrix(&matrix).place(site.buffer(x)).place(site.buffer(out));
    Ok(vec![Call {
        unit: unit(&matrix, &tiling, full, [false, true]),
        kernel: "head_linear",
        grid: [tiles as u32, heads as u32, site.rows.div_ceil(tiling.rows) as u32],
        block: 32 * tiling.warps as u32,
        shared: tiling.shared() as u32,
        args: args.size(outputs).size(0),
    }])
}

/// What the bodies for few rows are made of.
const HEADERS: &[(&str, &str)] = &[
    unit::DEVICE,
    unit::QUANT,
    unit::MATVEC,
    unit::PRODUCT,
    ("linear/kernel.cuh", include_str!("kernel.cuh")),
];

fn unit(matrix: &Matrix, tiling: &Tiling, full: bool, [norm, heads]: [bool; 2]) -> Unit {
    let mut defines = tiling.defines(["K_LANE", "K_WARPS", "K_STEP", "K_SLOTS", "K_ONCE"]);
    defines.extend([
        ("K_FORMAT", format_of(matrix.format)),
        ("K_COLS", matrix.cols.to_string()),
        ("K_ROWS", tiling.rows.to_string()),
        ("K_FULL", u8::from(full).to_string()),
        ("K_NORM", u8::from(norm).to_string()),
        ("K_HEADS", u8::from(heads).to_string()),
        ("K_TWO_PER_SM", u8::from(tiling.fits_two_per_sm()).to_string()),
    ]);
    Unit { headers: HEADERS, op: ("linear/kernel.cu", include_str!("kernel.cu")), defines }
}

/// Products of one buffer, as few launches as their formats allow; `norm` makes that buffer first.
pub(crate) fn products(
    site: &Site<'_>,
    x: BufferId,
    products: &[Product],
    mut norm: Option<&NormOp>,
) -> Result<Vec<Call>, Unsupported> {
    let mut calls = Vec::new();
    let mut left: Vec<&Product> = products.iter().collect();
    while let Some(first) = left.first() {
        let format = first.matrix.format;
        let (same, other): (Vec<&Product>, Vec<&Product>) =
            left.iter().partition(|product| product.matrix.format == format);
        for some in same.chunks(PRODUCTS_MAX) {
            if site.rows > FEW_ROWS_MAX {
                calls.extend(gemm::launches(site, x, some, 1, norm.take())?);
            } else {
                calls.push(launch(site, x, some, norm.take())?);
            }
        }
        left = other;
    }
    Ok(calls)
}

/// Products with matrices of one format and width.
fn launch(
    site: &Site<'_>,
    x: BufferId,
    products: &[&Product],
    norm: Option<&NormOp>,
) -> Result<Call, Unsupported> {
    let matrix = products[0].matrix;
    let mut args = Args::new().address(site.count()).place(site.buffer(norm.map_or(x, |norm| norm.x)));
    let mut tiles = 0;
    for i in 0..PRODUCTS_MAX {
        let product = &products[i.min(products.len() - 1)];
        args = product.args(args, tiles);
        if i < products.len() {
            tiles += product.matrix.rows.div_ceil(16);
        }
    }
    let (weight, eps, scale) =
        norm.map_or((0, 0.0, 0.0), |norm| (site.vector(norm.weight), norm.eps, norm.scale));
    let args =
        args.size(tiles).size(products.len()).place(site.buffer(x)).address(weight).float(eps).float(scale);
    let (format, cols) = (matrix.format, matrix.cols);
    let full = products.iter().all(|product| product.matrix.rows.is_multiple_of(16));
    let tiling = site.tiling(Work { format, cols, join: 1, repeats: 1, tiles, full }, site.rows)?;
    let grid = [tiling.blocks as u32, site.rows.div_ceil(tiling.rows) as u32, 1];
    let fills = grid[1] == 1 && tiling.once() && 2 * grid[0] > site.at.setting.multiprocessors;
    Ok(Call {
        unit: unit(&matrix, &tiling, full, [norm.is_some(), false]),
        kernel: "linear",
        grid,
        block: 32 * tiling.warps as u32,
        shared: if fills { site.spread(tiling.shared(), true) } else { tiling.shared() as u32 },
        args,
    })
}
