//! Launches of the elementwise ops, copies among them.

use amoeba_plan::{AddOp, BufferId, CopyOp, GateKind, HeadGateOp, ScaleOp, TemperatureOp};

use crate::cuda::unit;
use crate::gpu::{Args, Call, Site, Unit};

/// A thread per element, a line of blocks per row.
pub(crate) fn elements(site: &Site<'_>, kernel: &'static str, width: usize, args: Args) -> Call {
    Call {
        unit: Unit {
            headers: &[unit::DEVICE, unit::ACTIVATE, ("elementwise/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("elementwise/kernel.cu", include_str!("kernel.cu")),
            defines: Vec::new(),
        },
        kernel,
        grid: [width.div_ceil(256) as u32, site.rows as u32, 1],
        block: 256,
        shared: 0,
        args,
    }
}

pub(crate) fn add(site: &Site<'_>, op: &AddOp) -> Call {
    let args = Args::new().address(site.count()).place(site.buffer(op.x)).place(site.buffer(op.y));
    elements(site, "add", op.width, args.size(op.width).float(op.scale))
}

pub(crate) fn scale(site: &Site<'_>, op: &ScaleOp) -> Call {
    let args = Args::new().address(site.count()).place(site.buffer(op.x)).address(site.vector(op.by));
    let args = args.size(op.width).float(op.scale).float(op.softcap.unwrap_or(0.0));
    elements(site, "scale", op.width, args)
}

pub(crate) fn head_gate(site: &Site<'_>, op: &HeadGateOp) -> Call {
    let kind = match op.kind {
        GateKind::Plain => 0,
        GateKind::Sigmoid => 1,
        GateKind::Softplus => 2,
    };
    let args = Args::new().address(site.count()).place(site.buffer(op.gate)).place(site.buffer(op.x));
    elements(site, "head_gate", op.heads * op.width, args.size(kind).size(op.heads).size(op.width))
}

pub(crate) fn temperature(site: &Site<'_>, op: &TemperatureOp) -> Call {
    let args = Args::new().address(site.count()).address(site.at.step).place(site.buffer(op.x));
    let args = args.size(op.width).float(op.scale).float(op.period).float(op.shift);
    elements(site, "temperature", op.width, args)
}

pub(crate) fn copy(site: &Site<'_>, op: &CopyOp) -> Call {
    let CopyOp { x, out, heads, len } = *op;
    let args = Args::new().address(site.count()).place(site.buffer(x.buffer)).place(site.buffer(out.buffer));
    let args = args.size(x.first).size(x.stride).size(out.first).size(out.stride).size(heads).size(len);
    elements(site, "copy", heads * len, args)
}

/// Row n becomes the row whose logits are the n-th asked for.
pub(crate) fn compact(site: &Site<'_>, buffer: BufferId, width: usize) -> Call {
    let args = Args::new().address(site.at.step).place(site.buffer(buffer)).size(width).size(0);
    elements(site, "compact", width, args)
}
