//! Launches of the elementwise ops, copies among them.

use amoeba_plan::{BufferId, GateKind, Op, Strided};

use crate::cuda::{Args, Call, Site, Unit, unit};

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

pub(crate) fn elementwise(site: &Site<'_>, op: &Op) -> Call {
    let args = Args::new().address(site.count());
    match *op {
        Op::Add { x, y, scale, width } => {
            let args = args.place(site.buffer(x)).place(site.buffer(y)).size(width).float(scale);
            elements(site, "add", width, args)
        }
        Op::Scale { x, scale, by, softcap, width } => {
            let args = args.place(site.buffer(x)).address(site.vector(by)).size(width);
            elements(site, "scale", width, args.float(scale).float(softcap.unwrap_or(0.0)))
        }
        Op::HeadGate { kind, gate, heads, x, width } => {
            let kind = match kind {
                GateKind::Plain => 0,
                GateKind::Sigmoid => 1,
                GateKind::Softplus => 2,
            };
            let args = args.place(site.buffer(gate)).place(site.buffer(x)).size(kind).size(heads).size(width);
            elements(site, "head_gate", heads * width, args)
        }
        Op::Temperature { x, width, scale, period, shift } => {
            let args = args.address(site.at.step).place(site.buffer(x)).size(width);
            elements(site, "temperature", width, args.float(scale).float(period).float(shift))
        }
        Op::Copy { x, out, heads, len } => copy(site, args, x, out, heads, len),
        ref other => unreachable!("{} is not elementwise", other.name()),
    }
}

fn copy(site: &Site<'_>, args: Args, x: Strided, out: Strided, heads: usize, len: usize) -> Call {
    let args = args.place(site.buffer(x.buffer)).place(site.buffer(out.buffer));
    let args = args.size(x.first).size(x.stride).size(out.first).size(out.stride).size(heads).size(len);
    elements(site, "copy", heads * len, args)
}

/// Row n becomes the row whose logits are the n-th asked for.
pub(crate) fn compact(site: &Site<'_>, buffer: BufferId, width: usize) -> Call {
    let args = Args::new().address(site.at.step).place(site.buffer(buffer)).size(width).size(0);
    elements(site, "compact", width, args)
}
