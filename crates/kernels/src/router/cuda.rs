//! Launches of `router`.

use amoeba_plan::{RouterOp, Score};

use crate::cuda::unit;
use crate::gpu::{Args, Call, Site, Unit, Unsupported};

/// A thread per expert.
const EXPERTS_MAX: usize = 1024;

pub(crate) fn route(site: &Site<'_>, op: &RouterOp) -> Result<Call, Unsupported> {
    let RouterOp { rule, experts, .. } = op;
    let experts = *experts;
    if experts > EXPERTS_MAX || rule.top_k > experts {
        let what = format!("{} of {experts} experts, at most {EXPERTS_MAX}", rule.top_k);
        return Err(Unsupported(what));
    }
    let (score, jitter) = match rule.score {
        Score::Softmax => ("SOFTMAX", 0.0),
        Score::TopKSoftmax => ("TOP_K_SOFTMAX", 0.0),
        Score::Sigmoid => ("SIGMOID_SCORE", 0.0),
        Score::SparseMixer { jitter } => ("SPARSE_MIXER", jitter),
    };
    let groups =
        rule.groups.map_or([0; 3], |groups| [groups.count, groups.keep, usize::from(groups.best_two)]);
    let mut args = Args::new().address(site.count());
    for buffer in [Some(op.logits), Some(op.out), op.input_gate] {
        args = args.place(site.buffer_or_null(buffer));
    }
    for weight in [op.correction, op.per_expert] {
        args = args.address(site.vector(weight));
    }
    Ok(Call {
        unit: Unit {
            headers: &[unit::DEVICE, unit::CHOOSE, ("router/kernel.cuh", include_str!("kernel.cuh"))],
            op: ("router/kernel.cu", include_str!("kernel.cu")),
            defines: vec![
                ("K_EXPERTS", experts.to_string()),
                ("K_TOP", rule.top_k.to_string()),
                ("K_SCORE", score.to_owned()),
                ("K_GROUPS", groups[0].to_string()),
                ("K_KEEP", groups[1].to_string()),
                ("K_BEST_TWO", groups[2].to_string()),
                ("K_NORMALISE", u8::from(rule.normalise.is_some()).to_string()),
            ],
        },
        kernel: "router",
        grid: [site.rows as u32, 1, 1],
        block: experts.next_multiple_of(32) as u32,
        shared: 0,
        args: args.float(rule.normalise.unwrap_or(0.0)).float(rule.scale).float(jitter).size(0),
    })
}
