//! What the references of ops work on: `run` in each `reference.rs` takes an op of the program and a [`Row`].

use amoeba_checkpoint::{Checkpoint, Error, Matrix};
use amoeba_plan::{BufferId, Plan, WeightId, WeightShape};

/// One row of a step.
pub struct Row<'a> {
    /// Its token.
    pub token: u32,
    /// Its position in its sequence.
    pub position: usize,
    /// Which row of the buffers it is.
    pub index: usize,
    /// The plan of the program.
    pub plan: &'a Plan,
    /// Where matrices are read from.
    pub checkpoint: &'a Checkpoint,
    /// Vectors by weight id; empty for matrices.
    pub vectors: &'a [Vec<f32>],
    /// `[buffer][row]`.
    pub buffers: &'a mut [Vec<Vec<f32>>],
}

impl<'a> Row<'a> {
    /// This row of a buffer.
    pub fn buffer(&self, id: BufferId) -> &[f32] {
        &self.buffers[id.0][self.index]
    }

    /// This row of a buffer, to write; as long as what was last written there.
    pub fn buffer_mut(&mut self, id: BufferId) -> &mut Vec<f32> {
        &mut self.buffers[id.0][self.index]
    }

    /// A vector, if the op has it.
    pub fn vector(&self, id: Option<WeightId>) -> Option<&'a [f32]> {
        id.map(|id| &self.vectors[id.0][..])
    }

    /// A matrix as stored.
    ///
    /// # Errors
    /// It is missing or misshapen.
    pub fn matrix(&self, id: WeightId) -> Result<Matrix<'a>, Error> {
        let weight = self.plan.weight(id);
        match weight.shape {
            WeightShape::Matrix(rows, cols) => self.checkpoint.matrix(&weight.path, rows, cols),
            other => unreachable!("{} is used as a matrix but planned as {other}", weight.path),
        }
    }

    /// The matrices of all experts or heads as stored.
    ///
    /// # Errors
    /// One is missing or misshapen.
    pub fn stack(&self, id: WeightId) -> Result<Vec<Matrix<'a>>, Error> {
        let weight = self.plan.weight(id);
        match weight.shape {
            WeightShape::Stack(n, rows, cols) => {
                self.checkpoint.stack(&weight.path, weight.each.as_deref(), n, rows, cols)
            }
            other => unreachable!("{} is used as a stack but planned as {other}", weight.path),
        }
    }
}
