//! Runs a step piece by piece, so that a probe sees each op's result before another op writes over it.

use std::ops::Range;

use super::Workers;
use super::compile::{Phase, RowWork};
use crate::{Error, Flow, Probe};

/// Everything a phase of rows does.
pub const ALL_WORKS: Range<usize> = 0..usize::MAX;

/// Ops whose results are complete once a phase is done, or these works of a phase of rows.
fn finished_ops(phase: &Phase, works: &Range<usize>, mut f: impl FnMut(usize)) {
    match phase {
        Phase::Rows(work) => {
            work[works.start..works.end.min(work.len())].iter().for_each(|work| match work {
                RowWork::Op(op) => f(*op),
                RowWork::RopeTable(_) | RowWork::Prepare { .. } => {}
            });
        }
        Phase::Linears(ops) => ops.iter().copied().for_each(f),
        Phase::AttentionJoin(op) | Phase::Recurrent(op) | Phase::Combine(op) => f(*op),
        Phase::Attention(_) | Phase::ExpertItems(_) | Phase::PrepareInner(_) | Phase::ExpertDown(_) => {}
    }
}

/// A phase of rows cut behind every op that a probe looks at, since later ops may write the same buffer.
fn parts(phase: &Phase, probe: &dyn Probe) -> Vec<Range<usize>> {
    let Phase::Rows(work) = phase else { return vec![ALL_WORKS] };
    let wanted = |work: &RowWork| matches!(work, RowWork::Op(op) if probe.wants(*op));
    let ends = (1..work.len()).filter(|end| wanted(&work[end - 1])).chain([work.len()]);
    let mut start = 0;
    ends.map(|end| std::mem::replace(&mut start, end)..end).collect()
}

impl Workers {
    /// Runs the phases one by one and shows each op to the probe; false if the probe stopped the step.
    pub(super) fn probed(&mut self, last: usize, probe: &mut dyn Probe) -> Result<bool, Error> {
        for phase in 0..last {
            let parts = parts(&self.model().phases.phases[phase], probe);
            for works in parts {
                self.model().state.get(0).works = works.clone();
                let run = self.pool.run(phase..phase + 1);
                let model = self.pool.work();
                model.state.get(0).works = ALL_WORKS;
                run?;
                let ran_together = match &model.phases.phases[phase] {
                    Phase::Linears(ops) => {
                        model.phases.groups.iter().find(|group| group.ops.contains(&ops[0]))
                    }
                    _ => None,
                };
                ran_together.into_iter().for_each(|group| probe.group(group));
                let mut stop = false;
                finished_ops(&model.phases.phases[phase], &works, |op| {
                    stop |= probe.wants(op) && probe.see(op, &model.buffers) == Flow::Stop;
                });
                if stop {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
