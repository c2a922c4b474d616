//! Weights in kernel order: every tensor of the plan copied once from the mapped file into anonymous memory.

mod eviction;
mod packing;
mod repack_cache;

use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::experts::{Bank, Projection};
use amoeba_kernels::linear::Packed;
use amoeba_plan::{ExpertWeights, Op, Plan, WeightId, WeightShape};

use super::recurrent;
use crate::Error;
use packing::Source;
pub use repack_cache::RepackCache;

/// Told as the work goes on: bytes packed so far and bytes in all.
pub type PackProgress<'a> = &'a mut dyn FnMut(usize, usize);

/// All weights of a plan.
pub struct Weights {
    /// By weight id: dense layers and the embedding table.
    matrices: Vec<Option<Packed>>,
    /// By weight id.
    vectors: Vec<Vec<f32>>,
    /// By index of the op in the program.
    banks: Vec<Option<Bank>>,
}

impl Weights {
    /// Packs everything with `threads` threads, or reads it from the cache.
    pub fn load(
        plan: &Plan,
        checkpoint: &Checkpoint,
        threads: usize,
        cache: Option<&RepackCache>,
        progress: PackProgress<'_>,
    ) -> Result<Weights, Error> {
        let vectors =
            plan.weights.iter().map(|weight| Ok(weight.read_vector(checkpoint)?.unwrap_or_default()));
        let mut vectors = vectors.collect::<Result<Vec<_>, Error>>()?;
        recurrent::arrange(plan, &mut vectors);
        let sources = sources(plan, checkpoint)?;
        checkpoint.release_all(); // headers and vectors
        let mut loader =
            Loader { checkpoint, threads, done: 0, total: sources.iter().map(Source::bytes).sum(), progress };
        let packed = match cache {
            Some(cache) => cache.load(&sources, &mut loader),
            None => loader.pack(&sources),
        };
        Ok(Weights::assemble(plan, vectors, packed))
    }

    /// Puts packed tensors, in the order of [`sources`], where they belong.
    fn assemble(plan: &Plan, vectors: Vec<Vec<f32>>, packed: Vec<Packed>) -> Weights {
        let mut packed = packed.into_iter();
        let mut next = || packed.next().expect("one packed tensor per source");
        let matrices = plan.weights.iter().map(|weight| matches!(weight.shape, WeightShape::Matrix(..)));
        let matrices = matrices.map(|is_matrix| is_matrix.then(&mut next)).collect();
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

    /// A matrix that some op multiplies by.
    pub fn matrix(&self, id: WeightId) -> &Packed {
        match &self.matrices[id.0] {
            Some(packed) => packed,
            None => unreachable!("weight {} is no matrix; the plan was built wrongly", id.0),
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

/// All tensors to be packed: matrices by weight id, then the experts of each op, gate, up and down.
fn sources<'a>(plan: &'a Plan, checkpoint: &'a Checkpoint) -> Result<Vec<Source<'a>>, Error> {
    let mut sources = Vec::new();
    for weight in &plan.weights {
        if let WeightShape::Matrix(rows, cols) = weight.shape {
            let matrix = checkpoint.matrix(&weight.path, rows, cols)?;
            sources.push(Source::new(&weight.path, vec![matrix], 1));
        }
    }
    for step in &plan.program {
        let Op::Experts(op) = &step.op else { continue };
        let down = Some((op.down, Bank::slices_for(op.top_k)));
        for (weights, slices) in [op.gate.map(|gate| (gate, 1)), Some((op.up, 1)), down].into_iter().flatten()
        {
            let weight = plan.weight(weights.stack);
            let WeightShape::Stack(experts, rows, cols) = weight.shape else {
                unreachable!("{} is used as a stack but planned as {}", weight.path, weight.shape)
            };
            let stack = checkpoint.stack(&weight.path, weight.each.as_deref(), experts, rows, cols)?;
            sources.push(Source::new(&weight.path, stack, slices));
        }
    }
    Ok(sources)
}

/// What every way of loading needs.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    threads: usize,
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
            let told = &mut |bytes| (self.progress)(before + bytes, total);
            let packed = source.pack(self.checkpoint, self.threads, told);
            self.done += source.bytes();
            (self.progress)(self.done, total);
            packed
        };
        sources.iter().map(pack).collect()
    }
}
