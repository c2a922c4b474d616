//! Which groups wait for which.

use super::Group;
use crate::{Io, Plan};

/// Fills in [`Group::after`]: a group waits for an earlier one if one of the two writes a buffer's elements
/// or a cache that the other reads or writes. Groups that another one on the list waits for are left out.
pub(super) fn find(plan: &Plan, groups: &mut [Group]) {
    let io: Vec<Io> = groups.iter().map(|group| all(plan, group)).collect();
    // Of each group the earlier ones that are done when it is.
    let mut done: Vec<Vec<bool>> = Vec::with_capacity(groups.len());
    for (n, group) in groups.iter_mut().enumerate() {
        let mut before = vec![false; n];
        for earlier in (0..n).rev() {
            if !before[earlier] && io[earlier].precedes(&io[n]) {
                group.after.push(earlier);
                before[earlier] = true;
                before.iter_mut().zip(&done[earlier]).for_each(|(before, done)| *before |= done);
            }
        }
        group.after.reverse();
        done.push(before);
    }
}

/// What the ops of a group read and write. Buffers that only the group itself uses count too: another may use
/// them.
fn all(plan: &Plan, group: &Group) -> Io {
    let mut all = Io::default();
    for step in &plan.program[group.ops.clone()] {
        let io = step.op.io();
        all.reads.extend(io.reads);
        all.writes.extend(io.writes.into_iter().filter(|write| !group.unwritten.contains(&write.buffer)));
        all.read_caches.extend(io.read_caches);
        all.written_caches.extend(io.written_caches);
    }
    all
}
