//! What lies where in a model's one piece of device memory: weights as in the file, vectors as f32, rotary
//! tables, caches, buffers, scratch. Decided before anything is reserved, so that what does not fit is
//! reported with numbers.

use std::ops::Range;

use amoeba_checkpoint::{Checkpoint, Matrix as Stored};
use amoeba_kernels::gpu::{
    self, Matrix, Place, Places, STEP_HEAD_BYTES, Setting, StepRow, WeightPlace, ZEROED_BYTES,
};
use amoeba_kernels::sample::cuda as sample;
use amoeba_plan::{Plan, Weight, WeightShape};

use super::Need;
use super::sampler::drawn_rows_max;
use crate::Limits;

/// Every place begins at a multiple of this: what the widest reads and copies want.
const ALIGN: usize = 256;

/// Where everything is: offsets into the piece, as addresses of a piece that begins at 0.
pub struct Layout {
    /// How much of what.
    pub need: Need,
    /// For the kernels.
    at: Places,
    /// Bytes of each cache.
    caches: Vec<usize>,
    /// States, batch and working memory of sampling.
    pub sample: [u64; 3],
}

/// Gives out places one after another.
#[derive(Default)]
struct Cursor(usize);

impl Cursor {
    fn take(&mut self, bytes: usize) -> u64 {
        let start = self.0;
        self.0 += bytes.next_multiple_of(ALIGN);
        start as u64
    }
}

/// The matrices of a weight as stored; none for a vector.
///
/// # Errors
/// Missing or misshapen.
pub fn matrices<'a>(
    weight: &Weight,
    checkpoint: &'a Checkpoint,
) -> Result<Vec<Stored<'a>>, amoeba_checkpoint::Error> {
    match weight.shape {
        WeightShape::Vector(_) => Ok(Vec::new()),
        WeightShape::Matrix(rows, cols) => Ok(vec![checkpoint.matrix(&weight.path, rows, cols)?]),
        WeightShape::Stack(experts, rows, cols) => {
            checkpoint.stack(&weight.path, weight.each.as_deref(), experts, rows, cols)
        }
    }
}

impl Layout {
    /// Lays out a plan with the weights of a checkpoint.
    ///
    /// # Errors
    /// A weight missing or misshapen.
    pub fn new(
        plan: &Plan,
        checkpoint: &Checkpoint,
        limits: Limits,
        setting: Setting,
    ) -> Result<Layout, amoeba_checkpoint::Error> {
        let (mut cursor, rows) = (Cursor::default(), limits.rows);
        let weights = plan.weights.iter().map(|weight| place(weight, checkpoint, &mut cursor));
        let weights = weights.collect::<Result<_, _>>()?;
        let ropes = plan.ropes.iter().map(|rope| cursor.take(gpu::rope_table(rope).len())).collect();
        let weight_bytes = cursor.0;
        let sizes: Vec<usize> =
            plan.caches.iter().map(|cache| gpu::cache_bytes(cache.kind, &setting)).collect();
        let caches = sizes.iter().map(|&bytes| cursor.take(bytes)).collect();
        let cache_bytes = cursor.0 - weight_bytes;
        let buffers = plan.buffers.iter().map(|buffer| {
            let stride = buffer.width.next_multiple_of(16);
            Place { address: cursor.take(rows * stride * 4), stride }
        });
        let buffers = buffers.collect();
        let step = cursor.take(STEP_HEAD_BYTES + rows * size_of::<StepRow>());
        let scratch = cursor.take(gpu::scratch_bytes(plan, &setting, rows));
        let zeroed = cursor.take(ZEROED_BYTES);
        let drawn = drawn_rows_max(limits);
        let sample = [
            4 * sample::STATE_WORDS * limits.slots,
            4 * sample::batch_words(drawn),
            sample::work_bytes(plan.spec.vocab) * drawn,
        ];
        let sample = sample.map(|bytes| cursor.take(bytes));
        let buffer_bytes = cursor.0 - weight_bytes - cache_bytes;
        let need = Need { weights: weight_bytes, caches: cache_bytes, buffers: buffer_bytes };
        let at = Places { step, buffers, weights, caches, ropes, scratch, zeroed, setting };
        Ok(Layout { need, at, caches: sizes, sample })
    }

    /// Offsets, in the place of addresses.
    pub fn offsets(&self) -> &Places {
        &self.at
    }

    /// What must be zero before the first step.
    pub fn zeroed(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let range = |start: u64, bytes: usize| start as usize..start as usize + bytes;
        let caches = self.at.caches.iter().zip(&self.caches).map(move |(start, bytes)| range(*start, *bytes));
        caches.chain([range(self.at.zeroed, ZEROED_BYTES)]).filter(|range| !range.is_empty())
    }

    /// Addresses for the kernels, of a piece that begins at `base`.
    pub fn places(&self, base: u64) -> Places {
        let mut at = self.at.clone();
        at.buffers.iter_mut().for_each(|buffer| buffer.address += base);
        at.caches.iter_mut().chain(&mut at.ropes).for_each(|address| *address += base);
        [&mut at.step, &mut at.scratch, &mut at.zeroed].into_iter().for_each(|address| *address += base);
        at.weights.iter_mut().for_each(|weight| match weight {
            WeightPlace::Vector(address) => *address += base,
            WeightPlace::Matrix(Matrix { codes, scales, biases, .. }) => {
                [codes, scales, biases].into_iter().for_each(|address| *address += base);
            }
        });
        at
    }
}

fn place(
    weight: &Weight,
    checkpoint: &Checkpoint,
    cursor: &mut Cursor,
) -> Result<WeightPlace, amoeba_checkpoint::Error> {
    if let WeightShape::Vector(len) = weight.shape {
        return Ok(WeightPlace::Vector(cursor.take(len * 4)));
    }
    let all = matrices(weight, checkpoint)?;
    let Stored { rows, cols, format, .. } = all[0];
    let parts = [all[0].weight, all[0].scales, all[0].biases];
    let [codes, scales, biases] = parts.map(|part| cursor.take(part.len() * all.len()));
    Ok(WeightPlace::Matrix(Matrix { codes, scales, biases, format, rows, cols }))
}
