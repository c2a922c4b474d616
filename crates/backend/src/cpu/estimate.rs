//! Bytes that a loaded plan needs in addition to weights and caches, known before anything is loaded.

use amoeba_kernels::experts::Bank;
use amoeba_kernels::linear::{Digits, Layout};
use amoeba_plan::{Op, Plan, Stored};

use super::compile::{Precision, compile};
use super::digits;
use super::phases::{attention, experts};
use crate::{Activations, Limits};

/// Buffers of a step, angles, prepared rows, partial results of attention and experts, for weights stored
/// like that (in the order of `plan.weights`). What a worker has for itself is left out.
pub fn workspace_bytes(plan: &Plan, stored: &[Stored], limits: Limits, activations: Activations) -> u64 {
    let room = |[rows, width]: [usize; 2]| (rows as u64).saturating_mul(width as u64).saturating_mul(4);
    let rows = limits.rows;
    let buffers = plan.buffers.iter().map(|buffer| [rows, buffer.width.next_multiple_of(16)]);
    let ropes = plan.ropes.iter().map(|rope| [rows, rope.dims]);
    let precision = Precision::new(plan, digits(activations).unwrap_or(Digits::Three));
    let prepared = compile(plan, stored, &precision).prepared;
    let prepared = prepared.iter().map(|key| [rows, key.arrangement.len(key.cols)]);
    let slices = |index: usize| match &plan.program[index].op {
        Op::Experts(op) => {
            let format = stored[op.down.stack.0].format;
            Layout::sliced(op.hidden, op.d_ff, format, Bank::slices_for(op.top_k)).slices()
        }
        _ => 1,
    };
    let experts = experts::sizes(plan, &slices, rows);
    let all =
        buffers.chain(ropes).chain(prepared).chain(experts).chain([attention::partials_size(plan, limits)]);
    all.map(room).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::{Executable, LoadOptions};
    use amoeba_checkpoint::Checkpoint;
    use amoeba_plan::{BufferId, BufferKind, HeadLinearOp, Part, Step};
    use std::sync::Arc;

    /// With a product per head, where there is a stack of weights for it.
    fn with_heads(mut plan: Plan) -> Plan {
        let experts = plan.program.iter().find_map(|step| match &step.op {
            Op::Experts(op) => Some(*op),
            _ => None,
        });
        if let Some(amoeba_plan::ExpertsOp { experts: heads, d_ff: rows, hidden: cols, up, .. }) = experts {
            let [x, out] = [("heads_in", heads * cols), ("heads_out", heads * rows)].map(|(name, width)| {
                plan.buffers.push(amoeba_plan::Buffer { name, width, kind: BufferKind::Values });
                BufferId(plan.buffers.len() - 1)
            });
            let weight = up.stack;
            let op = Op::HeadLinear(HeadLinearOp { weight, heads, rows, cols, x, out });
            plan.program.insert(plan.head, Step { layer: Some(0), part: Part::Other, op });
            plan.head += 1;
        }
        plan
    }

    #[test]
    fn what_is_told_before_loading_is_what_a_load_takes() {
        for fixture in
            "qwen3_moe-q4g64 qwen2_moe-q4g64 mixtral-q4g64 qwen3_moe-mxfp4 llama-q4g64 qwen3_next-q4g64 \
            nemotron_h-q4g64 jamba-q4g64 deepseek_v3-q4g64 gemma4-q4g64-per_layer"
                .split_whitespace()
        {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
            let checkpoint = Arc::new(Checkpoint::open(&dir).unwrap());
            let plan = with_heads(Plan::of(&checkpoint).unwrap());
            let stored = plan.stored(&checkpoint).unwrap();
            for limits in [[1, 64, 1], [2, 64, 5], [1, 64, 64]].map(|[slots, context, rows]| Limits {
                slots,
                context,
                rows,
            }) {
                let activations = Activations::Int16;
                let options = LoadOptions { threads: Some(2), activations, ..LoadOptions::sized(limits) };
                let cpu = Cpu::load(plan.clone(), &checkpoint, &options, &mut |_, _| {}).unwrap();
                let model = cpu.backend.model();
                let held = cpu.memory() - model.weights.bytes() - model.caches.bytes();
                assert_eq!(
                    workspace_bytes(&plan, &stored, limits, activations),
                    held as u64,
                    "{fixture} {limits:?}"
                );
            }
        }
    }
}
