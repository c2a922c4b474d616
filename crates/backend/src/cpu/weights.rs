//! Weights in kernel order: every tensor of the plan copied once from the mapped file into anonymous memory.

mod eviction;
mod packing;
mod repack_cache;

use amoeba_checkpoint::{Checkpoint, Matrix};
use amoeba_kernels::experts::{Bank, Projection};
use amoeba_kernels::linear::Packed;
use amoeba_plan::{ExpertWeights, Op, Plan, Weight, WeightId, WeightShape};

use super::phases::recurrent;
use crate::{Error, LoadOptions};
use packing::Source;
pub use repack_cache::RepackCache;

/// Called as `progress(done_bytes, total_bytes)`.
pub type PackProgress<'a> = &'a mut dyn FnMut(usize, usize);

/// All weights of a plan.
pub struct Weights {
    /// By weight id: dense layers, the embedding table, products per head.
    matrices: Vec<Option<Packed>>,
    /// By weight id.
    vectors: Vec<Vec<f32>>,
    /// By index of the op in the program.
    banks: Vec<Option<Bank>>,
}

impl Weights {
    /// Packs everything with `threads` threads, or reads it from the cache of the options, whose notice is
    /// called if kept weights are damaged or cannot be kept.
    pub fn load(
        plan: &Plan,
        checkpoint: &Checkpoint,
        threads: usize,
        options: &LoadOptions,
        progress: PackProgress<'_>,
    ) -> Result<Weights, Error> {
        let vectors =
            plan.weights.iter().map(|weight| Ok(weight.read_vector(checkpoint)?.unwrap_or_default()));
        let mut vectors = vectors.collect::<Result<Vec<_>, Error>>()?;
        recurrent::arrange(plan, &mut vectors);
        let sources = sources(plan, checkpoint)?;
        checkpoint.release_all(); // headers and vectors
        let (notice, total) = (options.notice, sources.iter().map(Source::bytes).sum());
        let mut loader = Loader { checkpoint, threads, notice, done: 0, total, progress };
        let packed = match &options.repack_cache {
            Some(cache) => cache.load(&sources, &mut loader),
            None => loader.pack(&sources),
        };
        Ok(Weights::assemble(plan, vectors, packed))
    }

    /// Puts packed tensors, in the order of [`sources`], where they belong.
    fn assemble(plan: &Plan, vectors: Vec<Vec<f32>>, packed: Vec<Packed>) -> Weights {
        let mut packed = packed.into_iter();
        let mut next = || packed.next().expect("one packed tensor per source");
        let matrices = by_id(plan).into_iter().map(|by_id| by_id.then(&mut next)).collect();
        let banks = plan.program.iter().map(|step| {
            let Op::Experts(op) = &step.op else { return None };
            let mut project = |weights: ExpertWeights| Projection {
                weights: next(),
                bias: weights.bias.map(|bias| vectors[bias.0].clone()),
            };
            Some(Bank {
                gate: op.gate.map(&mut project),
                up: project(op.up),
                down: project(op.down),
                activation: op.activation,
            })
        });
        let banks = banks.collect();
        Weights { matrices, vectors, banks }
    }

    /// What some op multiplies by: a matrix, or one for each head.
    pub fn matrix(&self, id: WeightId) -> &Packed {
        match &self.matrices[id.0] {
            Some(packed) => packed,
            None => unreachable!("weight {} is not a matrix; the plan was built wrongly", id.0),
        }
    }

    /// A norm weight or bias.
    pub fn vector(&self, id: Option<WeightId>) -> Option<&[f32]> {
        id.map(|id| &self.vectors[id.0][..])
    }

    /// The experts of the op at that index of the program.
    pub fn bank(&self, op: usize) -> &Bank {
        match &self.banks[op] {
            Some(bank) => bank,
            None => unreachable!("op {op} has no experts; the plan was built wrongly"),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let vectors: usize = self.vectors.iter().map(|vector| vector.len() * 4).sum();
        self.packed().map(Packed::bytes).sum::<usize>() + vectors
    }

    /// Everything packed.
    pub fn packed(&self) -> impl Iterator<Item = &Packed> {
        let experts = self.banks.iter().flatten();
        let experts =
            experts.flat_map(|bank| [bank.gate.as_ref(), Some(&bank.up), Some(&bank.down)]).flatten();
        self.matrices.iter().flatten().chain(experts.map(|projection| &projection.weights))
    }
}

/// Which weights are packed under their id: all matrices, and the stacks of products per head.
fn by_id(plan: &Plan) -> Vec<bool> {
    let is_matrix = |weight: &Weight| matches!(weight.shape, WeightShape::Matrix(..));
    let mut by_id: Vec<bool> = plan.weights.iter().map(is_matrix).collect();
    for step in &plan.program {
        if let Op::HeadLinear(op) = &step.op {
            by_id[op.weight.0] = true;
        }
    }
    by_id
}

/// All tensors to be packed: those of [`by_id`], then the experts of each op, gate, up and down.
fn sources<'a>(plan: &'a Plan, checkpoint: &'a Checkpoint) -> Result<Vec<Source<'a>>, Error> {
    let mut sources = Vec::new();
    for (weight, _) in plan.weights.iter().zip(by_id(plan)).filter(|(_, by_id)| *by_id) {
        let matrices = match weight.shape {
            WeightShape::Matrix(rows, cols) => vec![checkpoint.matrix(&weight.path, rows, cols)?],
            _ => stack(weight, checkpoint)?,
        };
        sources.push(Source::new(&weight.path, matrices, 1));
    }
    for step in &plan.program {
        let Op::Experts(op) = &step.op else { continue };
        let down = Some((op.down, Bank::slices_for(op.top_k)));
        for (weights, slices) in [op.gate.map(|gate| (gate, 1)), Some((op.up, 1)), down].into_iter().flatten()
        {
            let weight = plan.weight(weights.stack);
            sources.push(Source::new(&weight.path, stack(weight, checkpoint)?, slices));
        }
    }
    Ok(sources)
}

fn stack<'a>(weight: &Weight, checkpoint: &'a Checkpoint) -> Result<Vec<Matrix<'a>>, Error> {
    let WeightShape::Stack(n, rows, cols) = weight.shape else {
        unreachable!("{} is used as a stack but planned as {}", weight.path, weight.shape)
    };
    Ok(checkpoint.stack(&weight.path, weight.each.as_deref(), n, rows, cols)?)
}

/// What every way of loading needs.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    threads: usize,
    notice: fn(&str),
    done: usize,
    /// Stored bytes of all sources.
    total: usize,
    progress: PackProgress<'a>,
}

impl Loader<'_> {
    /// Packs tensors one after another.
    fn pack(&mut self, sources: &[Source<'_>]) -> Vec<Packed> {
        let pack = |source: &Source<'_>| {
            let (before, total) = (self.done, self.total);
            let progress = &mut |bytes| (self.progress)(before + bytes, total);
            let packed = source.pack(self.checkpoint, self.threads, progress);
            self.done += source.bytes();
            (self.progress)(self.done, total);
            packed
        };
        sources.iter().map(pack).collect()
    }
}
