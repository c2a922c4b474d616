//! Launches of `linear` and `head_linear` for many rows.

use amoeba_plan::{BufferId, NormOp};

use super::cuda::{PRODUCTS_MAX, Product};
use crate::cuda::gemm::{Gemm, Tiles};
use crate::cuda::{format_of, unit};
use crate::gpu::{Args, Call, Matrix, Setting, Site, Unit, Unsupported};

/// x in parts, at most.
pub(crate) fn scratch_bytes(heads: usize, cols: usize, setting: &Setting, rows: usize) -> usize {
    rows * heads * crate::cuda::gemm::row_bytes_max(cols, setting)
}

/// What the bodies for many rows are made of.
const HEADERS: &[(&str, &str)] =
    &[unit::DEVICE, unit::QUANT, unit::GEMM, unit::PRODUCT, ("linear/gemm.cuh", include_str!("gemm.cuh"))];

fn unit(matrix: &Matrix, gemm: &Gemm) -> Unit {
    let mut defines = vec![("K_FORMAT", format_of(matrix.format)), ("K_COLS", matrix.cols.to_string())];
    defines.extend(gemm.defines(["K_PARTS", "K_WM", "K_WK", "K_NT", "K_STAGES"]));
    Unit { headers: HEADERS, op: ("linear/gemm.cu", include_str!("gemm.cu")), defines }
}

/// Products of `x` with matrices of one format and width, per head; `norm` makes that buffer first.
pub(crate) fn launches(
    site: &Site<'_>,
    x: BufferId,
    products: &[&Product],
    heads: usize,
    norm: Option<&NormOp>,
) -> Result<[Call; 2], Unsupported> {
    let (setting, matrix) = (&site.at.setting, products[0].matrix);
    let outputs: usize = products.iter().map(|product| product.matrix.rows).sum();
    let plain = Gemm::new(&matrix, site.rows, Tiles::Many, setting)?;
    let blocks = outputs.div_ceil(plain.outputs()) * heads * site.rows.div_ceil(plain.tokens());
    let gemm = match setting.multiprocessors as usize {
        all if 2 * blocks <= all => Gemm::new(&matrix, site.rows, Tiles::Few, setting)?,
        all if blocks <= all => Gemm::new(&matrix, site.rows, Tiles::Enough, setting)?,
        _ => plain,
    };
    let unit = unit(&matrix, &gemm);
    let (block, units) = gemm.split();
    let from = norm.map_or(x, |norm| norm.x);
    let (weight, eps, scale) =
        norm.map_or((0, 0.0, 0.0), |norm| (site.vector(norm.weight), norm.eps, norm.scale));
    let args = Args::new().address(site.count()).place(site.buffer(from)).address(site.at.scratch);
    let args = args.place(site.buffer(x)).address(weight).float(eps).float(scale);
    let split = Call { unit: unit.clone(), kernel: "split", grid: [0; 3], block, shared: 0, args };
    let split = match norm {
        Some(_) => Call { kernel: "norm_split", grid: [site.rows as u32, 1, 1], block: 256, ..split },
        None => Call { grid: [units, site.rows as u32, heads as u32], ..split },
    };
    let (mut args, mut tiles) = (Args::new().address(site.count()).address(site.at.scratch), 0);
    for i in 0..PRODUCTS_MAX {
        let product = products[i.min(products.len() - 1)];
        args = product.args(args, tiles);
        if i < products.len() {
            tiles += product.matrix.rows.div_ceil(gemm.outputs());
        }
    }
    let product = Call {
        unit,
        kernel: "gemm",
        grid: [tiles as u32, site.rows.div_ceil(gemm.tokens()) as u32, heads as u32],
        block: gemm.threads(),
        shared: gemm.shared() as u32,
        args: args.size(products.len()).size(0),
    };
    Ok([split, product])
}
