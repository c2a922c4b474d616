//! What the machine can do at best: read bandwidth by workers and size.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use amoeba_kernels::memory::Bytes;

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
        // Written, so that every page exists; the same memory as the weights.
        let mut buffer = Bytes::zeroed(bytes);
        buffer.as_mut_slice().chunks_mut(512).for_each(|chunk| chunk[0] = 1);
        for threads in 1..=threads {
            let mut rates: Vec<f64> =
                (0..PASSES).map(|_| bytes as f64 / pass(buffer.as_slice(), threads)).collect();
            rates.sort_by(f64::total_cmp);
            let (median, best) = (rates[PASSES / 2], rates[PASSES - 1]);
            floor.read.push(Bandwidth { threads, bytes, median, best });
        }
    }
    floor
}

/// Seconds to read the whole buffer once.
fn pass(buffer: &[u8], threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let part = buffer.len().div_ceil(threads).next_multiple_of(64);
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

/// Reads with four streams far apart, as much as a core can pull.
fn sum(chunk: &[u8]) -> u64 {
    let (lines, _) = chunk.as_chunks::<64>();
    let quarter = lines.len() / 4;
    let mut acc = [[0u64; 8]; 4];
    for i in 0..quarter {
        for (stream, acc) in acc.iter_mut().enumerate() {
            let words = lines[stream * quarter + i].as_chunks::<8>().0;
            acc.iter_mut().zip(words).for_each(|(a, x)| *a = a.wrapping_add(u64::from_le_bytes(*x)));
        }
    }
    acc.iter().flatten().fold(0, |sum, x| sum.wrapping_add(*x))
}
