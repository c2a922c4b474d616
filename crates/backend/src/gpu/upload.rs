//! Weights from the mapped file to the device: several threads fill stages of host memory while earlier ones
//! are copied.

use std::sync::Mutex;
use std::sync::mpsc;

use amoeba_checkpoint::{Checkpoint, Matrix as Stored};
use amoeba_kernels::gpu::{self, Matrix, WeightPlace};
use amoeba_plan::Plan;

use super::Error;
use super::driver::{Driver, Fault};
use super::layout::{Layout, matrices};
use super::steps::LaunchContext;
use crate::PackProgress;

/// Bytes of one copy.
const STAGE: usize = 8 << 20;
/// Threads that fill stages: one alone copies slower than the bus takes.
const THREADS: usize = 4;
/// Stages of a thread, each with a queue of its own: one is filled while the other is copied.
const STAGES: usize = 2;

/// One copy to the device.
struct Job<'a> {
    offset: usize,
    parts: Vec<&'a [u8]>,
    bytes: usize,
}

/// Cuts pieces into jobs; adjacent pieces may share one.
#[derive(Default)]
struct Jobs<'a>(Vec<Job<'a>>);

impl<'a> Jobs<'a> {
    fn put(&mut self, mut offset: usize, bytes: &'a [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let open = self.0.last_mut().filter(|job| job.offset + job.bytes == offset && job.bytes < STAGE);
            let room = STAGE - open.as_ref().map_or(0, |job| job.bytes);
            let (part, after) = rest.split_at(room.min(rest.len()));
            match open {
                Some(job) => {
                    job.parts.push(part);
                    job.bytes += part.len();
                }
                None => self.0.push(Job { offset, parts: vec![part], bytes: part.len() }),
            }
            (offset, rest) = (offset + part.len(), after);
        }
    }
}

/// Copies all weights and tables to their places and waits for them. Called as
/// `progress(done_bytes, total_bytes)`.
///
/// # Errors
/// A weight missing or misshapen, or the device failed.
pub fn upload<D: Driver>(
    plan: &Plan,
    checkpoint: &Checkpoint,
    layout: &Layout,
    on: &LaunchContext<D>,
    progress: PackProgress<'_>,
) -> Result<(), Error> {
    let at = layout.offsets();
    let mut small = Vec::new();
    for (weight, place) in plan.weights.iter().zip(&at.weights) {
        if let (WeightPlace::Vector(offset), Some(values)) = (place, weight.read_vector(checkpoint)?) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            small.push((*offset, bytes));
        }
    }
    small.extend(at.ropes.iter().zip(&plan.ropes).map(|(offset, rope)| (*offset, gpu::rope_table(rope))));
    let mut jobs = Jobs::default();
    small.iter().for_each(|(offset, bytes)| jobs.put(*offset as usize, bytes));
    for (weight, place) in plan.weights.iter().zip(&at.weights) {
        let WeightPlace::Matrix(Matrix { codes, scales, biases, .. }) = place else { continue };
        let parts: [(u64, for<'a> fn(&Stored<'a>) -> &'a [u8]); 3] =
            [(*codes, |of| of.weight), (*scales, |of| of.scales), (*biases, |of| of.biases)];
        for (offset, part) in parts {
            let mut offset = offset as usize;
            for matrix in &matrices(weight, checkpoint)? {
                jobs.put(offset, part(matrix));
                offset += part(matrix).len();
            }
        }
    }
    send_all(jobs.0, checkpoint, on, progress)
}

fn send_all<D: Driver>(
    jobs: Vec<Job<'_>>,
    checkpoint: &Checkpoint,
    on: &LaunchContext<D>,
    progress: PackProgress<'_>,
) -> Result<(), Error> {
    let total = jobs.iter().map(|job| job.bytes).sum();
    let threads = THREADS.min(jobs.len());
    let queue = Mutex::new(jobs.into_iter());
    let (sent, progressed) = mpsc::channel();
    let work = |sent: mpsc::Sender<usize>| -> Result<(), Fault> {
        let mut stages = Vec::new();
        for turn in 0.. {
            let Some(job) = queue.lock().ok().and_then(|mut queue| queue.next()) else { break };
            if stages.len() < STAGES {
                let queue = on.driver.another_queue()?;
                let host = queue.host::<u8>(STAGE)?;
                stages.push((host, queue));
            }
            let (host, queue) = &mut stages[turn % STAGES];
            let (staged, mut filled) = (D::fill(host)?, 0);
            for part in &job.parts {
                staged[filled..][..part.len()].copy_from_slice(part);
                filled += part.len();
            }
            queue.send(host, filled, &on.memory, job.offset)?;
            job.parts.iter().for_each(|part| checkpoint.release(part));
            let _ = sent.send(job.bytes); // received until all threads are done
        }
        stages.iter().try_for_each(|(_, queue)| queue.wait())
    };
    std::thread::scope(|scope| {
        let start = |sent: mpsc::Sender<usize>| scope.spawn(|| work(sent));
        let workers: Vec<_> = (0..threads).map(|_| start(sent.clone())).collect();
        drop(sent);
        let mut done = 0;
        for bytes in progressed {
            done += bytes;
            progress(done, total);
        }
        let joined = workers.into_iter().map(|worker| worker.join());
        let results: Vec<_> =
            joined.map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        results.into_iter().collect::<Result<(), _>>()
    })
    .map_err(Error::driver("sending the weights"))?;
    checkpoint.release_all(); // a page fault brings neighbours along
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_hold_every_byte_once_and_join_neighbours() {
        let data: Vec<u8> = (0..3 * STAGE + 100).map(|i| i as u8).collect();
        let mut jobs = Jobs::default();
        let (a, rest) = data.split_at(10);
        let (b, c) = rest.split_at(20);
        jobs.put(0, a);
        jobs.put(10, b); // next to it
        jobs.put(256, c); // apart
        let found: Vec<(usize, usize, usize)> =
            jobs.0.iter().map(|job| (job.offset, job.bytes, job.parts.len())).collect();
        assert_eq!(found[0], (0, 30, 2));
        assert_eq!(found[1], (256, STAGE, 1));
        assert_eq!(found.len(), 1 + c.len().div_ceil(STAGE));
        assert_eq!(found.iter().map(|job| job.1).sum::<usize>(), data.len());
        assert!(jobs.0.iter().flat_map(|job| job.parts.concat()).eq(data.iter().copied()), "in order");
    }
}
