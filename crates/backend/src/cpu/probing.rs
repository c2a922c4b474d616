//! Runs a step piece by piece, so that a probe sees each op's result before another op writes over it.

use std::ops::Range;

use super::Workers;
use super::phases::Phase;
use crate::{Error, Flow, Probe};

/// All parts of the items of any phase.
pub const ALL_PARTS: Range<usize> = 0..usize::MAX;

/// The parts of a phase, cut after each that a probe looks at: a later one may write the same buffer.
fn cuts(phase: &dyn Phase, probe: &dyn Probe) -> Vec<Range<usize>> {
    let looks = |end: &usize| phase.completes(end - 1).any(|op| probe.wants(op));
    let ends = (1..phase.parts()).filter(looks).chain([phase.parts()]);
    let mut start = 0;
    ends.map(|end| std::mem::replace(&mut start, end)..end).collect()
}

impl Workers {
    /// Runs the phases one by one and shows each op to the probe; false if the probe stopped the step.
    pub(super) fn probed(&mut self, last: usize, probe: &mut dyn Probe) -> Result<bool, Error> {
        for index in 0..last {
            for parts in cuts(&*self.model().phases.phases[index], probe) {
                self.model().state.get(0).parts = parts.clone();
                let run = self.pool.run(index..index + 1);
                let model = self.pool.work();
                model.state.get(0).parts = ALL_PARTS;
                run?;
                let phase = &model.phases.phases[index];
                phase.together().into_iter().for_each(|group| probe.group(group));
                let mut stop = false;
                for op in parts.flat_map(|part| phase.completes(part)) {
                    stop |= probe.wants(op) && probe.see(op, &model.buffers) == Flow::Stop;
                }
                if stop {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
