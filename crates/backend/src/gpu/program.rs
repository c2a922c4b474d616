//! The program as launches: lowered for every size of step, so that a step only goes through a list.

use std::ops::{Range, RangeInclusive};

use amoeba_kernels::gpu::{Call, Places, Staged, capabilities, compact, lower};
use amoeba_plan::{Group, PathChoice, Plan, groups};

use super::Error;
use crate::Stage;

/// Launches of a section of the program, for steps up to some number of rows.
pub struct Segment {
    /// Which section.
    pub section: Section,
    /// In order; those of the head begin by moving the rows that want logits to the front.
    pub calls: Vec<Call>,
    /// Groups of ops, and the launches that run them.
    pub groups: Vec<(Group, Range<usize>)>,
    /// What each launch is.
    pub infos: Vec<LaunchInfo>,
}

/// What a launch is, for traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchInfo {
    /// The first op that it serves.
    pub op: usize,
    /// How many.
    pub ops: usize,
    /// Which stage of the first.
    pub stage: Stage,
}

/// A program lowered for every size of step.
pub struct Program {
    /// Most rows, ascending; the last is the most of any step.
    pub sizes: Vec<usize>,
    /// Steps of fewer rows take the launches for this many.
    pub rows_min: usize,
    /// By [`Section`], then by size.
    pub sections: [Vec<Segment>; 2],
}

/// A section of the program that has rows of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Up to the head: rows are those of the step.
    Body,
    /// From the head on: rows are those that want logits.
    Head,
}

/// 1, 2, 4 … and the most itself.
fn sizes(rows_max: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size < rows_max);
    doubled.chain([rows_max]).collect()
}

impl Program {
    /// Lowers a plan with everything in its place.
    ///
    /// # Errors
    /// The first op that has no kernel.
    pub fn lower(plan: &Plan, at: &Places, rows_max: usize, path: PathChoice) -> Result<Program, Error> {
        let sizes = sizes(rows_max);
        let can = capabilities(at.setting.fused);
        let mut sections = [Vec::new(), Vec::new()];
        for &rows in &sizes {
            let (head, body) =
                groups(plan, &can, rows, path).into_iter().partition(|group| group.ops.start >= plan.head);
            sections[Section::Body as usize].push(segment(plan, at, (Section::Body, body), rows)?);
            sections[Section::Head as usize].push(segment(plan, at, (Section::Head, head), rows)?);
        }
        Ok(Program { sections, sizes, rows_min: 1 })
    }

    /// Index of the smallest size that has room for `rows` rows.
    pub fn size_of(&self, rows: usize) -> usize {
        let rows = rows.max(self.rows_min);
        self.sizes.partition_point(|size| *size < rows)
    }

    /// Sizes of the steps that have the same launches as a step of `rows` rows.
    pub fn bit_identical_sizes(&self, rows: usize) -> RangeInclusive<usize> {
        let size = self.size_of(rows).min(self.sizes.len() - 1);
        let fewer = size.checked_sub(1).map(|before| self.sizes[before]);
        let first = fewer.filter(|&fewer| fewer >= self.rows_min).map_or(1, |fewer| fewer + 1);
        first..=self.sizes[size]
    }

    /// Launches for steps of that size.
    pub fn segment(&self, section: Section, size: usize) -> &Segment {
        &self.sections[section as usize][size]
    }

    /// Most launches of a section.
    pub fn launches_max(&self, section: Section) -> usize {
        self.sections[section as usize].iter().map(|segment| segment.calls.len()).max().unwrap_or(0)
    }
}

/// Lowers a section of the program.
fn segment(
    plan: &Plan,
    at: &Places,
    (section, groups): (Section, Vec<Group>),
    rows: usize,
) -> Result<Segment, Error> {
    let mut calls = Vec::new();
    if section == Section::Head {
        let carried = plan.carried();
        calls.extend(carried.into_iter().map(|id| compact(plan, at, id, plan.buffer(id).width)));
    }
    let mut infos = vec![LaunchInfo { op: plan.head, ops: 1, stage: Stage::Start }; calls.len()];
    let mut lowered = Vec::with_capacity(groups.len());
    for group in groups {
        let first = calls.len();
        let staged = lower(plan, &group, at, rows).map_err(|what| Error::Unsupported(what.to_string()))?;
        for Staged { stage, call } in staged {
            let ops = group.ops_of(stage);
            infos.push(LaunchInfo { op: ops.start, ops: ops.len(), stage });
            calls.push(call);
        }
        lowered.push((group, first..calls.len()));
    }
    Ok(Segment { section, calls, groups: lowered, infos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_double_up_to_the_most() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(8), [1, 2, 4, 8]);
        assert_eq!(sizes(21), [1, 2, 4, 8, 16, 21]);
        let mut program = Program { sizes: sizes(21), rows_min: 1, sections: [Vec::new(), Vec::new()] };
        assert_eq!([1, 2, 3, 16, 17, 21].map(|rows| program.size_of(rows)), [0, 1, 2, 4, 5, 5]);
        assert_eq!(
            [1, 2, 3, 8, 21].map(|rows| program.bit_identical_sizes(rows)),
            [1..=1, 2..=2, 3..=4, 5..=8, 17..=21]
        );
        program.rows_min = 4;
        assert_eq!([1, 2, 4, 5, 16].map(|rows| program.size_of(rows)), [2, 2, 2, 3, 4]);
        assert_eq!(
            [1, 2, 4, 5, 16].map(|rows| program.bit_identical_sizes(rows)),
            [1..=4, 1..=4, 1..=4, 5..=8, 9..=16]
        );
    }
}
