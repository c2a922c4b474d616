//! What goes to the device with every step and comes back.

use amoeba_kernels::gpu::{Place, STEP_HEAD_BYTES, StepRow};
use amoeba_plan::Plan;

use super::driver::{Driver, Fault, Transfer};
use super::layout::Layout;
use crate::{Limits, StepRows};

/// u32 words of the step before its rows, and of each row.
const HEAD_WORDS: usize = STEP_HEAD_BYTES / 4;
const ROW_WORDS: usize = size_of::<StepRow>() / 4;

/// The step on its way to the device, its logits on their way back.
pub struct Mailbox<D: Driver> {
    /// The step as kernels read it.
    step: D::Host<u32>,
    /// Its offset in the model's memory.
    step_at: usize,
    /// Logits of the rows that wanted them, and where they come from.
    logits: D::Host<f32>,
    logits_at: Place,
    /// One row of the widest buffer, for probes.
    pub row: D::Host<f32>,
    /// Offsets of all buffers.
    pub buffers: Vec<Place>,
}

impl<D: Driver> Mailbox<D> {
    /// Room for the steps of a plan.
    ///
    /// # Errors
    /// The driver does not give host memory.
    pub fn new(driver: &D, plan: &Plan, layout: &Layout, limits: Limits) -> Result<Mailbox<D>, Fault> {
        let at = layout.offsets();
        let widest = at.buffers.iter().map(|buffer| buffer.stride).max().unwrap_or(1);
        let logits_at = at.buffers[plan.logits.0];
        Ok(Mailbox {
            step: driver.host(words(limits.rows))?,
            step_at: at.step as usize,
            logits: driver.host(limits.rows * logits_at.stride)?,
            logits_at,
            row: driver.host(widest)?,
            buffers: at.buffers.clone(),
        })
    }

    /// Writes down a step.
    ///
    /// # Errors
    /// The device failed while the last one was sent.
    pub fn write(&mut self, step: &StepRows) -> Result<(), Fault> {
        let (rows, wanted) = (step.rows(), step.wanted());
        let words = D::fill(&mut self.step)?;
        words[..HEAD_WORDS].copy_from_slice(&[rows.len() as u32, wanted.len() as u32, 0, 0]);
        let entries = words[HEAD_WORDS..].chunks_exact_mut(ROW_WORDS);
        for (i, (row, entry)) in rows.iter().zip(entries).enumerate() {
            let source = wanted.get(i).map_or(0, |source| *source as u32);
            entry.copy_from_slice(&[row.token, row.slot as u32, row.position as u32, source]);
        }
        Ok(())
    }

    /// Sends a step of `rows` rows.
    ///
    /// # Errors
    /// The device failed.
    pub fn send(&mut self, driver: &D, memory: &D::Memory, rows: usize) -> Result<(), Fault> {
        driver.send(&mut self.step, words(rows), memory, self.step_at)
    }

    /// The same copy, for a graph.
    pub fn copy<'a>(&'a mut self, memory: &'a D::Memory, rows: usize) -> Transfer<'a, D> {
        Transfer { from: &mut self.step, count: words(rows), to: memory, offset: self.step_at }
    }

    /// What the copy of a graph reads.
    pub fn step(&mut self) -> &mut D::Host<u32> {
        &mut self.step
    }

    /// Brings the logits of `rows` rows and waits for them.
    ///
    /// # Errors
    /// The device failed, now or in the step.
    pub fn fetch(&mut self, driver: &D, memory: &D::Memory, rows: usize) -> Result<(), Fault> {
        let Place { address, stride } = self.logits_at;
        match rows {
            0 => Ok(()),
            rows => driver.fetch(&mut self.logits, rows * stride, memory, address as usize),
        }
    }

    /// Logits that [`Mailbox::fetch`] brought, of the n-th row that wanted them, `[vocab]`.
    pub fn logits(&self, n: usize, vocab: usize) -> &[f32] {
        &D::get(&self.logits)[n * self.logits_at.stride..][..vocab]
    }
}

/// Words of a step of `rows` rows.
fn words(rows: usize) -> usize {
    HEAD_WORDS + rows * ROW_WORDS
}
