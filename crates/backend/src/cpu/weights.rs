//! Weights in kernel order: every tensor of the plan copied once from the mapped file into anonymous memory.

use std::sync::Mutex;

use amoeba_checkpoint::{Checkpoint, Matrix};
use amoeba_kernels::experts::{Bank, Projection};
use amoeba_kernels::linear::{Layout, Packed};
use amoeba_plan::{ExpertWeights, ExpertsOp, Op, Plan, WeightId, WeightShape};

use crate::Error;

/// Told after each tensor: bytes packed so far and bytes in all.
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
    /// Packs everything with `threads` threads.
    pub fn load(
        plan: &Plan,
        checkpoint: &Checkpoint,
        threads: usize,
        progress: PackProgress<'_>,
    ) -> Result<Weights, Error> {
        let stored = plan.resolve(checkpoint)?;
        let total: usize = stored.iter().map(|stored| stored.bytes).sum();
        let mut loader = Loader { plan, checkpoint, threads, done: 0, total, progress };
        let mut weights = Weights { matrices: Vec::new(), vectors: Vec::new(), banks: Vec::new() };
        for weight in &plan.weights {
            weights.vectors.push(match weight.shape {
                WeightShape::Vector(len) => checkpoint.vector(&weight.path, len)?,
                _ => Vec::new(),
            });
            weights.matrices.push(match weight.shape {
                WeightShape::Matrix(rows, cols) => {
                    let matrix = checkpoint.matrix(&weight.path, rows, cols)?;
                    Some(loader.pack(&[matrix], 1))
                }
                _ => None,
            });
        }
        for step in &plan.program {
            weights.banks.push(match &step.op {
                Op::Experts(op) => Some(loader.bank(op, &weights.vectors)?),
                _ => None,
            });
        }
        Ok(weights)
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
        let banks = self
            .banks
            .iter()
            .flatten()
            .flat_map(|bank| [bank.gate.as_ref(), Some(&bank.up), Some(&bank.down)]);
        let experts: usize = banks.flatten().map(|projection| projection.weights.bytes()).sum();
        let matrices: usize = self.matrices.iter().flatten().map(Packed::bytes).sum();
        experts + matrices + self.vectors.iter().map(|vector| vector.len() * 4).sum::<usize>()
    }
}

/// Packs tensors one after another.
struct Loader<'a> {
    plan: &'a Plan,
    checkpoint: &'a Checkpoint,
    threads: usize,
    done: usize,
    total: usize,
    progress: PackProgress<'a>,
}

impl Loader<'_> {
    fn bank(&mut self, op: &ExpertsOp, vectors: &[Vec<f32>]) -> Result<Bank, Error> {
        let mut project = |weights: ExpertWeights, slices: usize| -> Result<Projection, Error> {
            let weight = self.plan.weight(weights.stack);
            let WeightShape::Stack(experts, rows, cols) = weight.shape else {
                unreachable!("{} is used as a stack but planned as {}", weight.path, weight.shape)
            };
            let stack = self.checkpoint.stack(&weight.path, weight.each.as_deref(), experts, rows, cols)?;
            let bias = weights.bias.map(|bias| vectors[bias.0].clone());
            Ok(Projection { weights: self.pack(&stack, slices), bias })
        };
        Ok(Bank {
            gate: op.gate.map(|gate| project(gate, 1)).transpose()?,
            up: project(op.up, 1)?,
            down: project(op.down, Bank::slices_for(op.top_k))?,
            activation: op.activation,
        })
    }

    /// Packs equal matrices, blocks of rows shared out among threads.
    fn pack(&mut self, matrices: &[Matrix<'_>], slices: usize) -> Packed {
        let layout = Layout::sliced(matrices[0].rows, matrices[0].cols, matrices[0].format, slices);
        let mut packed = Packed::zeroed(layout, matrices.len());
        let jobs: Vec<_> = packed.pieces_mut().collect();
        let jobs = Mutex::new(jobs.into_iter());
        let work = || {
            loop {
                let job = jobs.lock().ok().and_then(|mut jobs| jobs.next());
                let Some(piece) = job else { return };
                layout.pack_piece(&matrices[piece.matrix], piece);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(work);
            }
            work();
        });
        self.done += matrices.iter().map(Matrix::bytes).sum::<usize>();
        (self.progress)(self.done, self.total);
        packed
    }
}
