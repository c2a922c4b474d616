//! `Plan`: everything a backend needs to run a model, still without weights or device.

use amoeba_checkpoint::{Checkpoint, Config, Format, Matrix};

use crate::families;
use crate::lower::Lowering;
use crate::program::{Buffer, BufferId, Cache, Rope, Step, Weight, WeightShape};
use crate::{Error, ModelSpec, Op, WeightId, read_spec};

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
    /// As [`read_spec`].
    pub fn of(checkpoint: &Checkpoint) -> Result<Plan, Error> {
        let has = |name: &str| checkpoint.has(name);
        Ok(Plan::from_spec(families::read(checkpoint.config(), Some(&has))?))
    }

    /// Plans a model from its spec.
    pub fn from_spec(spec: ModelSpec) -> Plan {
        let mut lowering = Lowering::default();
        let head = lowering.model(&spec);
        let Lowering { weights, buffers, caches, ropes, program, .. } = lowering;
        Plan { spec, weights, buffers, caches, ropes, program, head }
    }

    /// A weight by id.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0]
    }

    /// Name and width of a buffer.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0]
    }

    /// The buffer of that name.
    pub fn buffer_named(&self, name: &str) -> Option<BufferId> {
        self.buffers.iter().position(|buffer| buffer.name == name).map(BufferId)
    }

    /// Checks that the checkpoint holds every weight in the expected shape, and reports how each is stored.
    ///
    /// # Errors
    /// The first tensor that is missing or misshapen.
    pub fn resolve(&self, checkpoint: &Checkpoint) -> Result<Vec<Stored>, Error> {
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

    /// Whether some cache sums up the past, so that a sequence can only go on from its last position or start anew.
    pub fn recurrent(&self) -> bool {
        self.caches.iter().any(|cache| cache.kind.recurrent())
    }

    /// Parameters in total.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|weight| weight.shape.elements()).sum()
    }

    /// Buffers read by the head before the head writes them: backends compact them to the rows that want logits.
    pub fn carried(&self) -> Vec<BufferId> {
        let (mut written, mut carried) = (Vec::new(), Vec::new());
        for step in &self.program[self.head..] {
            let read = match &step.op {
                Op::Norm(norm) => Some(norm.x),
                Op::Linear { x, .. } | Op::Scale { x, .. } => Some(*x),
                _ => None,
            };
            carried.extend(read.filter(|x| !written.contains(x) && !carried.contains(x)));
            written.extend(step.op.output());
        }
        carried
    }

    /// Share of a weight that one decoded token reads: experts per token over experts, one row of an
    /// embedding table that is not also the head, everything else whole.
    pub fn share_read_per_token(&self, id: WeightId) -> f64 {
        let uses = self.program.iter().filter_map(|step| match &step.op {
            Op::Linear { weight, bias, .. } => (*weight == id || *bias == Some(id)).then_some(1.0),
            Op::Norm(norm) => (norm.weight == Some(id) || norm.bias == Some(id)).then_some(1.0),
            op if !op.weights().contains(&id) => None,
            Op::Experts(experts) => Some(experts.top_k as f64 / experts.experts as f64),
            Op::Embed { .. } => match self.weight(id).shape {
                WeightShape::Matrix(rows, _) => Some(1.0 / rows as f64),
                _ => Some(1.0),
            },
            _ => Some(1.0),
        });
        uses.fold(0.0, f64::max)
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
