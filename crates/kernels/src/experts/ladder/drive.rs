//! Runs a step on several threads: items by an atomic ticket, a barrier after every phase. The same for all
//! steps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Batch, Version};

/// Spins before a waiting worker gives its core away.
const SPINS: usize = 1 << 12;

/// Holds workers until all have come.
struct Barrier {
    workers: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    /// A worker has panicked and will never come.
    broken: AtomicBool,
}

impl Barrier {
    fn new(workers: usize) -> Barrier {
        let zero = || AtomicUsize::new(0);
        Barrier { workers, arrived: zero(), generation: zero(), broken: AtomicBool::new(false) }
    }

    fn wait(&self) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.workers {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation + 1, Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.generation.load(Ordering::Acquire) == generation {
            assert!(!self.broken.load(Ordering::Relaxed), "another worker panicked");
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

/// Breaks the barrier if its worker panics.
struct Alarm<'a>(&'a Barrier);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs a step on one batch after another with `workers` threads, the caller's being one; what each batch
/// took.
pub fn drive(version: &dyn Version, batches: &[&Batch], workers: usize) -> Vec<Duration> {
    let phases = version.phases();
    let tickets: Vec<AtomicUsize> = (0..batches.len() * phases).map(|_| AtomicUsize::new(0)).collect();
    let barrier = Barrier::new(workers);
    let work = |worker: usize, times: &mut Vec<Duration>| {
        let _alarm = Alarm(&barrier);
        barrier.wait();
        for (batch, tickets) in batches.iter().zip(tickets.chunks_exact(phases)) {
            let started = Instant::now();
            for (phase, ticket) in tickets.iter().enumerate() {
                let items = version.items(batch, phase);
                loop {
                    let item = ticket.fetch_add(1, Ordering::Relaxed);
                    if item >= items {
                        break;
                    }
                    version.run(batch, phase, item, worker);
                }
                barrier.wait();
            }
            times.push(started.elapsed());
        }
    };
    std::thread::scope(|scope| {
        for worker in 1..workers {
            let work = &work;
            scope.spawn(move || work(worker, &mut Vec::with_capacity(batches.len())));
        }
        let mut times = Vec::with_capacity(batches.len());
        work(0, &mut times);
        times
    })
}
