//! `dump`: runs a model up to one op and shows a buffer; two devices can be bisected to the first op that
//! differs.

use std::path::Path;

use amoeba_backend::{Buffers, Flow, Probe, Row};
use amoeba_engine::{LoadOptions, load_executable, open};
use amoeba_plan::{BufferId, Plan};

use crate::Error;

/// Where to stop and what to show.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// Layer of the op; `None` counts ops from the start of the program.
    pub layer: Option<usize>,
    /// Name of the op (the last of that name in the layer), or its number as `inspect --plan` prints it.
    pub op: String,
    /// Buffer to show; `None` for the one the op writes.
    pub buffer: Option<String>,
    /// Device, threads, path.
    pub load: LoadOptions,
}

/// A buffer after an op.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Index of the op in the program.
    pub op: usize,
    /// The op as the program prints it.
    pub name: &'static str,
    /// Buffer shown.
    pub buffer: &'static str,
    /// One row per token.
    pub rows: Vec<Vec<f32>>,
    /// Device that ran it.
    pub device: String,
}

/// Runs `tokens` as one step up to the op, and returns the buffer.
///
/// # Errors
/// The model cannot be loaded, or there is no such op or buffer (the message lists what there is).
pub fn dump(dir: &Path, tokens: &[u32], options: &DumpOptions) -> Result<Dump, Error> {
    let checkpoint = open(dir)?;
    let load =
        LoadOptions { context: Some(tokens.len().max(1)), rows: tokens.len().max(1), ..options.load.clone() };
    let mut executable = load_executable(&checkpoint, &load, &mut |_, _| {})?;
    let plan = executable.plan();
    let op = find_op(plan, options)?;
    let buffer = find_buffer(plan, op, options.buffer.as_deref())?;
    let (name, buffer_name) = (plan.program[op].op.name(), plan.buffer(buffer).name);
    let width = plan.buffer(buffer).width;
    let mut probe = One { op, buffer, width, rows: tokens.len(), values: Vec::new() };
    let row = |(position, &token): (usize, &u32)| Row { token, slot: 0, position, logits: true };
    let rows: Vec<Row> = tokens.iter().enumerate().map(row).collect();
    executable.step(&rows, Some(&mut probe))?;
    Ok(Dump { op, name, buffer: buffer_name, rows: probe.values, device: executable.describe() })
}

fn find_op(plan: &Plan, options: &DumpOptions) -> Result<usize, Error> {
    if let Ok(index) = options.op.parse::<usize>() {
        let last = plan.program.len() - 1;
        return if index <= last {
            Ok(index)
        } else {
            Err(Error::Dump(format!("op {index}: the last is {last}")))
        };
    }
    let within = |step: &&amoeba_plan::Step| options.layer.is_none() || step.layer == options.layer;
    let found = plan.program.iter().rposition(|step| within(&step) && step.op.name() == options.op);
    found.ok_or_else(|| {
        let mut names: Vec<&str> = plan.program.iter().filter(within).map(|step| step.op.name()).collect();
        names.sort_unstable();
        names.dedup();
        let layers = plan.spec.layers.len();
        Error::Dump(format!(
            "no op `{}` there; layers 0 to {}, ops {}",
            options.op,
            layers - 1,
            names.join(", ")
        ))
    })
}

fn find_buffer(plan: &Plan, op: usize, name: Option<&str>) -> Result<BufferId, Error> {
    let names = || plan.buffers.iter().map(|buffer| buffer.name).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) => {
            plan.buffer_named(name).ok_or_else(|| Error::Dump(format!("no buffer `{name}`; {}", names())))
        }
        None => {
            let output = plan.program[op].op.output();
            output.ok_or_else(|| Error::Dump(format!("this op writes a cache; name a buffer: {}", names())))
        }
    }
}

/// Copies one buffer after one op, then stops the step.
struct One {
    op: usize,
    buffer: BufferId,
    width: usize,
    rows: usize,
    values: Vec<Vec<f32>>,
}

impl Probe for One {
    fn wants(&self, op: usize) -> bool {
        op == self.op
    }

    fn see(&mut self, _: usize, buffers: &dyn Buffers) -> Flow {
        let row = |row| buffers.row(self.buffer, row).iter().copied().take(self.width).collect();
        self.values = (0..self.rows).map(row).collect();
        Flow::Stop
    }
}
