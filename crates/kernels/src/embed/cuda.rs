//! Launches of `embed`.

use amoeba_plan::EmbedOp;

use crate::cuda::{format_of, unit};
use crate::gpu::{Args, Call, Site, Unit};

pub(crate) fn embed(site: &Site<'_>, op: &EmbedOp) -> Call {
    let table = site.matrix(op.table);
    Call {
        unit: Unit {
            headers: &[unit::DEVICE, unit::QUANT, ("embed/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("embed/kernel.cu", include_str!("kernel.cu")),
            defines: vec![("K_FORMAT", format_of(table.format)), ("K_COLS", table.cols.to_string())],
        },
        kernel: "embed",
        grid: [table.cols.div_ceil(256) as u32, site.rows as u32, 1],
        block: 256,
        shared: 0,
        args: Args::new().address(site.at.step).matrix(&table).place(site.buffer(op.out)).float(op.scale),
    }
}
