//! The program as launches: lowered once at load for every size of step, so that a step only goes through a list.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use amoeba_kernels::cuda::{Call, Places, Unit, compact, lower};
use amoeba_plan::{Op, PathChoice, Plan};

use crate::Error;
use crate::compile::Compiler;
use crate::sys::{Arena, Code, Gpu, Launch};

/// Most rows of a step whose experts run fused, and which is one graph.
pub const DECODE_ROWS_MAX: usize = 8;

/// Launches of a part of the program for steps of at most so many rows.
pub struct Stretch<L> {
    /// In order.
    pub launches: L,
    /// Ops of the program, and the launches that run them.
    pub ops: Vec<(Range<usize>, Range<usize>)>,
}

/// A program lowered for every size of step.
pub struct Program<L> {
    /// Most rows, ascending; the last is the most of any step.
    pub sizes: Vec<usize>,
    /// Up to the head, by size. Rows are those of the step.
    pub bodies: Vec<Stretch<L>>,
    /// The head, by size. Rows are those that want logits.
    pub heads: Vec<Stretch<L>>,
}

/// 1, 2, 4 … and the most itself.
fn sizes(rows_max: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size < rows_max);
    doubled.chain([rows_max]).collect()
}

impl<L> Program<L> {
    /// Index of the smallest size that so many rows fit.
    pub fn size_of(&self, rows: usize) -> usize {
        self.sizes.partition_point(|size| *size < rows)
    }
}

impl Program<Vec<Call>> {
    /// Lowers a plan with everything in its place.
    ///
    /// # Errors
    /// The first op that has no kernel.
    pub fn lower(plan: &Plan, at: &Places, rows_max: usize, path: PathChoice) -> Result<Self, Error> {
        let sizes = sizes(rows_max);
        let end = plan.program.len();
        let bodies = sizes.iter().map(|&rows| stretch(plan, at, 0..plan.head, rows, path));
        let heads = sizes.iter().map(|&rows| stretch(plan, at, plan.head..end, rows, path));
        Ok(Program {
            bodies: bodies.collect::<Result<_, _>>()?,
            heads: heads.collect::<Result<_, _>>()?,
            sizes,
        })
    }

    /// Compiles what it needs and makes it ready to launch.
    ///
    /// # Errors
    /// A kernel does not compile, or the driver refuses it.
    pub fn load(
        self,
        compiler: &Compiler,
        (gpu, arena): (&Gpu, &Arc<Arena>),
        notice: fn(&str),
    ) -> Result<Program<Arc<[Launch]>>, Error> {
        let all = || self.bodies.iter().chain(&self.heads).flat_map(|stretch| &stretch.launches);
        let codes = load_units(all(), compiler, gpu, notice)?;
        let ready = |stretch: &Stretch<Vec<Call>>| {
            let launches = stretch.launches.iter().map(|call| {
                let launch = codes[&call.unit].launch(call, arena);
                launch.map_err(|error| Error::driver(call.kernel)(error))
            });
            let launches = launches.collect::<Result<Arc<[Launch]>, Error>>()?;
            Ok(Stretch { launches, ops: stretch.ops.clone() })
        };
        let [bodies, heads] = [&self.bodies, &self.heads]
            .map(|stretches| stretches.iter().map(ready).collect::<Result<Vec<_>, Error>>());
        Ok(Program { bodies: bodies?, heads: heads?, sizes: self.sizes.clone() })
    }
}

/// Compiles and loads the units of some calls, each once.
pub(crate) fn load_units<'a>(
    calls: impl Iterator<Item = &'a Call>,
    compiler: &Compiler,
    gpu: &Gpu,
    notice: fn(&str),
) -> Result<BTreeMap<&'a Unit, Code>, Error> {
    let units: BTreeSet<&Unit> = calls.map(|call| &call.unit).collect();
    let units: Vec<&Unit> = units.into_iter().collect();
    let codes = compiler.all(&units, notice)?;
    let load = |code| Code::load(gpu, code).map_err(Error::driver("loading kernels"));
    units.into_iter().zip(codes).map(|(unit, code)| Ok((unit, load(code)?))).collect()
}

/// Lowers a part of the program.
fn stretch(
    plan: &Plan,
    at: &Places,
    part: Range<usize>,
    rows: usize,
    path: PathChoice,
) -> Result<Stretch<Vec<Call>>, Error> {
    let mut calls = Vec::new();
    if part.start == plan.head {
        let carried = plan.carried();
        calls.extend(carried.into_iter().map(|id| compact(plan, at, id, plan.buffer(id).width)));
    }
    let mut ops = vec![(part.start..part.start, 0..calls.len())];
    let mut next = part.start;
    while next < part.end {
        let unfused = path == PathChoice::Unfused && matches!(plan.program[next].op, Op::Experts(_));
        // Launches for more rows serve fewer too.
        let rows = if unfused { rows.max(DECODE_ROWS_MAX + 1) } else { rows };
        let lowered = lower(plan, next, at, rows).map_err(|what| Error::Unsupported(what.to_string()))?;
        let first = calls.len();
        calls.extend(lowered.calls);
        ops.push((next..next + lowered.ops, first..calls.len()));
        next += lowered.ops;
    }
    assert!(next == part.end, "op {} was lowered with the head", part.end);
    Ok(Stretch { launches: calls, ops })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_double_up_to_the_most() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(8), [1, 2, 4, 8]);
        assert_eq!(sizes(21), [1, 2, 4, 8, 16, 21]);
        let program: Program<()> = Program { sizes: sizes(21), bodies: Vec::new(), heads: Vec::new() };
        assert_eq!([1, 2, 3, 16, 17, 21].map(|rows| program.size_of(rows)), [0, 1, 2, 4, 5, 5]);
    }
}
