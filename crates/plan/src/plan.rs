//! `Plan`: everything a backend needs to run a model, still without weights or device.

use amoeba_checkpoint::{Checkpoint, Config, Format, Matrix};

use crate::lower::{Ends, Lowering};
use crate::program::{Buffer, BufferId, Cache, Rope, Step, Weight, WeightShape};
use crate::{Block, BlockKind, Error, ModelSpec, Region, RoutedBlock, WeightId, read_spec};
use crate::{account, families};

/// A model ready to be loaded by a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is computed.
    pub spec: ModelSpec,
    /// Tensors, each once.
    pub weights: Vec<Weight>,
    /// Buffers, one row per token of a step.
    pub buffers: Vec<Buffer>,
    /// State per sequence.
    pub caches: Vec<Cache>,
    /// Rotary tables.
    pub ropes: Vec<Rope>,
    /// The decode program.
    pub program: Vec<Step>,
    /// First step that runs only for rows whose logits are asked for.
    pub head: usize,
    /// The residual stream.
    pub residual: BufferId,
    /// The program's result.
    pub logits: BufferId,
    /// Blocks, in the order of their ends.
    pub blocks: Vec<Block>,
}

impl Plan {
    /// Plans the model a `config.json` describes.
    ///
    /// # Errors
    /// As [`read_spec`].
    pub fn new(config: &Config) -> Result<Plan, Error> {
        Ok(Plan::from_spec(read_spec(config)?))
    }

    /// Plans the model of a checkpoint, in the form its tensors have.
    ///
    /// # Errors
    /// As [`read_spec`], and tensors that change what the model computes but have no place in it: further
    /// layers, biases, the layout of the original repository.
    pub fn of(checkpoint: &Checkpoint) -> Result<Plan, Error> {
        let plan = Plan::from_spec(families::read(checkpoint.config(), Some(checkpoint.index()))?);
        account::check(&plan, checkpoint)?;
        Ok(plan)
    }

    /// What a person may want to know of the plan and the checkpoint it was made for: stored tensors that it
    /// leaves aside, a stated quantisation that the tensors contradict.
    pub fn notes(&self, checkpoint: &Checkpoint) -> Vec<String> {
        account::notes(self, checkpoint)
    }

    /// Plans a model from its spec.
    pub fn from_spec(spec: ModelSpec) -> Plan {
        let mut lowering = Lowering::default();
        let Ends { head, residual, logits } = lowering.model(&spec);
        let Lowering { weights, buffers, caches, ropes, program, blocks, .. } = lowering;
        Plan { spec, weights, buffers, caches, ropes, program, head, residual, logits, blocks }
    }

    /// A weight by id.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0]
    }

    /// Name and width of a buffer.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0]
    }

    /// The buffer of that name, for those who ask for one by hand: programs are read by
    /// [`Op::io`](crate::Op::io) and the plan's fields, names are only shown.
    pub fn buffer_named(&self, name: &str) -> Option<BufferId> {
        self.buffers.iter().position(|buffer| buffer.name == name).map(BufferId)
    }

    /// The block of routed experts that the step of that index computes the experts of.
    pub fn routed(&self, experts: usize) -> Option<(&Block, &RoutedBlock)> {
        self.blocks.iter().find_map(|block| match &block.kind {
            BlockKind::Experts(routed) if routed.experts == experts => Some((block, routed)),
            _ => None,
        })
    }

    /// Checks that the checkpoint holds every weight in the expected shape, and reports how each is stored.
    ///
    /// # Errors
    /// The first tensor that is missing or misshapen.
    pub fn stored(&self, checkpoint: &Checkpoint) -> Result<Vec<Stored>, Error> {
        self.weights.iter().map(|weight| Ok(Stored::new(weight, checkpoint)?)).collect()
    }

    /// f32 elements one position of one sequence takes in all caches.
    pub fn cache_elements_per_position(&self) -> usize {
        self.caches.iter().map(|cache| cache.kind.elements_per_position()).sum()
    }

    /// f32 elements one sequence takes in all caches, however long it is.
    pub fn cache_elements_per_sequence(&self) -> usize {
        self.caches.iter().map(|cache| cache.kind.elements_per_sequence()).sum()
    }

    /// Whether some cache sums up the past, so that a sequence can only continue from its last position or
    /// start anew.
    pub fn recurrent(&self) -> bool {
        self.caches.iter().any(|cache| cache.kind.recurrent())
    }

    /// Parameters in total.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|weight| weight.shape.elements()).sum()
    }

    /// Buffers read by the head before the head writes them: backends compact them to the rows that want
    /// logits.
    pub fn carried(&self) -> Vec<BufferId> {
        let (mut written, mut carried) = (Vec::<Region>::new(), Vec::new());
        for step in &self.program[self.head..] {
            let io = step.op.io();
            for read in io.reads {
                let fresh = written.iter().any(|write| read.within(*write));
                if !fresh && !carried.contains(&read.buffer) {
                    carried.push(read.buffer);
                }
            }
            written.extend(io.writes);
        }
        carried
    }

    /// Share of a weight that one decoded token reads: experts per token over experts, one row of an
    /// embedding table that is not also the head, everything else whole.
    pub fn share_read_per_token(&self, id: WeightId) -> f64 {
        let uses = self.program.iter().flat_map(|step| step.op.io().weights);
        uses.filter(|weight| weight.id == id).map(|weight| weight.share).fold(0.0, f64::max)
    }
}

/// How the checkpoint stores a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Format; vectors count as f32.
    pub format: Format,
    /// Bytes in the file.
    pub bytes: usize,
}

impl Stored {
    fn new(weight: &Weight, checkpoint: &Checkpoint) -> Result<Stored, amoeba_checkpoint::Error> {
        let of = |matrices: &[Matrix<'_>]| Stored {
            format: matrices[0].format,
            bytes: matrices.iter().map(Matrix::bytes).sum(),
        };
        match weight.shape {
            WeightShape::Vector(len) => {
                checkpoint.vector(&weight.path, len)?;
                let bytes = checkpoint.tensor(&weight.path)?.bytes.len();
                Ok(Stored { format: Format::Dense(amoeba_checkpoint::Float::F32), bytes })
            }
            WeightShape::Matrix(rows, cols) => Ok(of(&[checkpoint.matrix(&weight.path, rows, cols)?])),
            WeightShape::Stack(experts, rows, cols) => {
                Ok(of(&checkpoint.stack(&weight.path, weight.each.as_deref(), experts, rows, cols)?))
            }
        }
    }
}
