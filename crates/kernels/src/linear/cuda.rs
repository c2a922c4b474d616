//! Launches of `linear`.

use amoeba_plan::{BufferId, WeightId};

use crate::cuda::{Args, Call, Matrix, Place, Site, Tiling, Unit, Unsupported, format_of, unit};

/// One product.
struct Product {
    matrix: Matrix,
    bias: u64,
    out: Place,
}

/// Blocks per multiprocessor of a launch that goes over its tiles in a loop.
const BLOCKS_PER_SM: usize = 4;
/// Products that share a launch.
const PRODUCTS_MAX: usize = 4;

pub(crate) fn linear(
    site: &Site<'_>,
    weight: WeightId,
    bias: Option<WeightId>,
    x: BufferId,
    out: BufferId,
) -> Result<Vec<Call>, Unsupported> {
    let product = Product { matrix: site.matrix(weight), bias: site.vector(bias), out: site.buffer(out) };
    Ok(vec![products(site, site.buffer(x), &[product])?])
}

/// A product per head; `(heads, rows, cols)` as in the op.
pub(crate) fn head_linear(
    site: &Site<'_>,
    weight: WeightId,
    (heads, outputs, cols): (usize, usize, usize),
    x: BufferId,
    out: BufferId,
) -> Result<Call, Unsupported> {
    let matrix = site.matrix(weight);
    let tiling = Tiling::new(matrix.format, cols, 1, 1)?;
    let rows = tiling.rows(site.rows)?;
    let args =
        Args::new().address(site.count()).matrix(&matrix).place(site.buffer(x)).place(site.buffer(out));
    Ok(Call {
        unit: unit(&matrix, &tiling, rows),
        kernel: "head_linear",
        grid: [outputs.div_ceil(16) as u32, heads as u32, site.rows.div_ceil(rows) as u32],
        block: 32 * tiling.warps as u32,
        shared: tiling.shared(rows) as u32,
        args: args.size(outputs).size(0),
    })
}

fn unit(matrix: &Matrix, tiling: &Tiling, rows: usize) -> Unit {
    Unit {
        headers: &[unit::DEVICE, unit::QUANT, unit::MATVEC],
        op: ("linear/kernel.cu", include_str!("kernel.cu")),
        defines: vec![
            ("K_FORMAT", format_of(matrix.format)),
            ("K_LANE", tiling.lane.to_string()),
            ("K_COLS", matrix.cols.to_string()),
            ("K_ROWS", rows.to_string()),
            ("K_WARPS", tiling.warps.to_string()),
            ("K_STEP", tiling.step.to_string()),
        ],
    }
}

/// Products of one x with matrices of one format and width.
fn products(site: &Site<'_>, x: Place, products: &[Product]) -> Result<Call, Unsupported> {
    let Matrix { format, cols, .. } = products[0].matrix;
    let tiling = Tiling::new(format, cols, 1, 1)?;
    let rows = tiling.rows(site.rows)?;
    let mut args = Args::new().address(site.count()).address(0).place(x);
    let mut tiles = 0;
    for i in 0..PRODUCTS_MAX {
        let product = &products[i.min(products.len() - 1)];
        args = args.matrix(&product.matrix).address(product.bias).place(product.out).place(Place::default());
        args = args.size(product.matrix.rows).size(tiles).float(0.0).size(0);
        if i < products.len() {
            tiles += product.matrix.rows.div_ceil(16);
        }
    }
    let blocks = tiles.min(BLOCKS_PER_SM * site.at.setting.multiprocessors as usize);
    Ok(Call {
        unit: unit(&products[0].matrix, &tiling, rows),
        kernel: "linear",
        grid: [blocks as u32, site.rows.div_ceil(rows) as u32, 1],
        block: 32 * tiling.warps as u32,
        shared: tiling.shared(rows) as u32,
        args: args.size(tiles).size(products.len()),
    })
}
