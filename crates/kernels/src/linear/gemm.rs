//! Launches of `linear` and `head_linear` for many rows.

use super::cuda::{PRODUCTS_MAX, Product};
use crate::cuda::gemm::Gemm;
use crate::cuda::{Args, Call, Matrix, Place, Setting, Site, Unit, Unsupported, format_of, unit};

/// x in parts, at most.
pub(crate) fn scratch_bytes(heads: usize, cols: usize, setting: &Setting, rows: usize) -> usize {
    rows * heads * crate::cuda::gemm::row_bytes_max(cols, setting)
}

fn unit(matrix: &Matrix, gemm: &Gemm, setting: &Setting) -> Unit {
    let mut defines = vec![
        ("K_FORMAT", format_of(matrix.format)),
        ("K_COLS", matrix.cols.to_string()),
        ("K_PARTS", setting.x_parts.to_string()),
    ];
    defines.extend(gemm.defines(["K_WM", "K_WK", "K_NT", "K_STAGES"]));
    let headers = &[unit::DEVICE, unit::QUANT, unit::GEMM];
    Unit { headers, op: ("linear/gemm.cu", include_str!("gemm.cu")), defines }
}

/// Products of `x` with matrices of one format and width, per head.
pub(crate) fn launches(
    site: &Site<'_>,
    x: Place,
    products: &[&Product],
    heads: usize,
) -> Result<[Call; 2], Unsupported> {
    let (setting, matrix) = (&site.at.setting, products[0].matrix);
    let outputs: usize = products.iter().map(|product| product.matrix.rows).sum();
    let plain = Gemm::new(&matrix, site.rows, false, setting)?;
    let blocks = outputs.div_ceil(plain.outputs()) * heads * site.rows.div_ceil(plain.tokens());
    let gemm = if blocks <= setting.multiprocessors as usize {
        Gemm::new(&matrix, site.rows, true, setting)?
    } else {
        plain
    };
    let unit = unit(&matrix, &gemm, setting);
    let (block, units) = gemm.split();
    let split = Call {
        unit: unit.clone(),
        kernel: "split",
        grid: [units, site.rows as u32, heads as u32],
        block,
        shared: 0,
        args: Args::new().address(site.count()).place(x).address(site.at.scratch),
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
