//! What the machine can do at best: read bandwidth by workers and size.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Read bandwidth of one configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Threads reading, each its own part.
    pub threads: usize,
    /// Bytes read in one pass by all threads together.
    pub bytes: usize,
    /// Median over passes, bytes per second.
    pub median: f64,
    /// Best pass.
    pub best: f64,
}

/// All measurements of a machine.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// Every configuration.
    pub read: Vec<Bandwidth>,
}

impl Floor {
    /// Median bandwidth of the largest buffer at that many threads.
    pub fn memory(&self, threads: usize) -> Option<f64> {
        let of = self.read.iter().filter(|row| row.threads == threads);
        of.max_by_key(|row| row.bytes).map(|row| row.median)
    }
}

/// Passes per configuration.
const PASSES: usize = 9;

/// Measures reads of `sizes` bytes by 1 to `threads` threads.
pub fn measure_floor(threads: usize, sizes: &[usize]) -> Floor {
    let mut floor = Floor::default();
    for &bytes in sizes {
        // Written, so that every page exists; in anonymous memory like the weights.
        let buffer: Vec<u64> = (0..bytes as u64 / 8).collect();
        for threads in 1..=threads {
            let mut rates: Vec<f64> = (0..PASSES).map(|_| bytes as f64 / pass(&buffer, threads)).collect();
            rates.sort_by(f64::total_cmp);
            let (median, best) = (rates[PASSES / 2], rates[PASSES - 1]);
            floor.read.push(Bandwidth { threads, bytes, median, best });
        }
    }
    floor
}

/// Seconds to read the whole buffer once.
fn pass(buffer: &[u64], threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let part = buffer.len().div_ceil(threads);
    let times = std::thread::scope(|scope| {
        let workers: Vec<_> = buffer
            .chunks(part)
            .map(|chunk| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let started = Instant::now();
                    black_box(sum(chunk));
                    started.elapsed().as_secs_f64()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
    });
    times.max(1e-12)
}

/// Reads with four streams far apart, each four lines ahead of nothing: as much as a core can pull.
fn sum(chunk: &[u64]) -> u64 {
    let quarter = chunk.len() / 4 / 8 * 8;
    let mut acc = [[0u64; 8]; 4];
    for at in (0..quarter).step_by(8) {
        for (stream, acc) in acc.iter_mut().enumerate() {
            let line = &chunk[stream * quarter + at..][..8];
            acc.iter_mut().zip(line).for_each(|(a, x)| *a = a.wrapping_add(*x));
        }
    }
    let rest = &chunk[4 * quarter..];
    acc.iter().flatten().chain(rest).fold(0, |sum, x| sum.wrapping_add(*x))
}
