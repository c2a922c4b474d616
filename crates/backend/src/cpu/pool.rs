//! Worker threads that run one closure together, phase by phase.
//!
//! The caller is worker 0. Between runs workers spin a little, then park. Inside a run they meet at
//! [`Team::barrier`]; a panic in one worker poisons the team, so the others leave instead of waiting for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};

use crate::Error;

/// Spins before a waiting worker gives its core away.
const SPINS: usize = 1 << 12;
/// Spins between runs before a worker parks: about the host's work between two tokens.
const IDLE_SPINS: usize = 1 << 14;

/// What all workers share.
struct Shared {
    workers: usize,
    /// Number of runs started; odd bits of meaning: none. Workers wait for it to change.
    epoch: AtomicUsize,
    /// The closure of the current run.
    job: std::sync::Mutex<Option<Job>>,
    /// Workers that have not finished the current run.
    running: AtomicUsize,
    stop: AtomicBool,
    poisoned: AtomicBool,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    /// Next item of the current phase.
    next: AtomicUsize,
}

/// A borrowed closure with its lifetime erased; valid until [`Pool::run`] returns.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(Team<'_>) + Sync));

// SAFETY: the closure behind the pointer is Sync, and `Pool::run` keeps it alive until every worker is done.
unsafe impl Send for Job {}

/// The workers.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
}

/// One worker's view of a run.
#[derive(Clone, Copy)]
pub struct Team<'a> {
    shared: &'a Shared,
    /// Which worker, worker 0 is the caller.
    pub worker: usize,
}

impl Pool {
    /// A pool of `workers`, the caller included.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(workers: usize) -> Result<Pool, Error> {
        let shared = Arc::new(Shared {
            workers: workers.max(1),
            epoch: AtomicUsize::new(0),
            job: std::sync::Mutex::new(None),
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        });
        let mut handles = Vec::new();
        for worker in 1..shared.workers {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("amoeba-{worker}"));
            handles.push(builder.spawn(move || serve(&shared, worker)).map_err(Error::Threads)?);
        }
        let threads = handles.iter().map(|handle| handle.thread().clone()).collect();
        Ok(Pool { shared, threads, handles })
    }

    /// Workers, the caller included.
    pub fn size(&self) -> usize {
        self.shared.workers
    }

    /// Runs `job` on every worker and waits for all.
    ///
    /// # Errors
    /// A worker panicked, now or before.
    pub fn run(&self, job: &(dyn Fn(Team<'_>) + Sync)) -> Result<(), Error> {
        let shared = &*self.shared;
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(Error::WorkerPanicked);
        }
        shared.running.store(shared.workers - 1, Ordering::Relaxed);
        // SAFETY: only the lifetime is erased; this function returns after `running` has reached zero, and no
        // worker touches the job after it has counted itself out.
        let erased = unsafe {
            std::mem::transmute::<*const (dyn Fn(Team<'_>) + Sync), *const (dyn Fn(Team<'_>) + Sync)>(job)
        };
        if let Ok(mut slot) = shared.job.lock() {
            *slot = Some(Job(erased));
        }
        shared.next.store(0, Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        self.threads.iter().for_each(Thread::unpark);
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(Team { shared, worker: 0 })));
        if own.is_err() {
            shared.poisoned.store(true, Ordering::Release);
        }
        wait(|| shared.running.load(Ordering::Acquire) == 0);
        if shared.poisoned.load(Ordering::Acquire) { Err(Error::WorkerPanicked) } else { Ok(()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.threads.iter().for_each(Thread::unpark);
        for handle in self.handles.drain(..) {
            // A worker that panicked has already poisoned the pool.
            let _ = handle.join();
        }
    }
}

impl Team<'_> {
    /// Waits until all workers are here; what they wrote before is visible after. Resets [`Team::next`].
    pub fn barrier(&self) {
        let shared = self.shared;
        if shared.workers == 1 {
            shared.next.store(0, Ordering::Relaxed);
            return;
        }
        let generation = shared.generation.load(Ordering::Relaxed);
        if shared.arrived.fetch_add(1, Ordering::AcqRel) + 1 == shared.workers {
            shared.arrived.store(0, Ordering::Relaxed);
            shared.next.store(0, Ordering::Relaxed);
            shared.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        wait(|| {
            assert!(!shared.poisoned.load(Ordering::Relaxed), "another worker panicked");
            shared.generation.load(Ordering::Acquire) != generation
        });
    }

    /// Hands out 0, 1, 2 … below `items`, each to one worker, until the next barrier.
    pub fn next(&self, items: usize) -> Option<usize> {
        let item = self.shared.next.fetch_add(1, Ordering::Relaxed);
        (item < items).then_some(item)
    }
}

/// Spins, then yields, until `done`.
fn wait(mut done: impl FnMut() -> bool) {
    let mut spins = 0;
    while !done() {
        spins += 1;
        if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

/// Life of a worker thread.
fn serve(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < IDLE_SPINS { std::hint::spin_loop() } else { std::thread::park() }
        }
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let job = shared.job.lock().ok().and_then(|slot| *slot);
        if let Some(Job(job)) = job {
            // SAFETY: `Pool::run` keeps the closure alive until `running` is zero, which is after this call.
            let job = unsafe { &*job };
            let run = std::panic::AssertUnwindSafe(|| job(Team { shared, worker }));
            if std::panic::catch_unwind(run).is_err() {
                shared.poisoned.store(true, Ordering::Release);
            }
        }
        shared.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_handed_out_once_and_barriers_order_phases() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..200 {
            let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            pool.run(&|team| {
                for phase in 0..5 {
                    while let Some(item) = team.next(counts.len()) {
                        counts[item].fetch_add(1, Ordering::Relaxed);
                    }
                    team.barrier();
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == phase + 1));
                    team.barrier();
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn a_panic_is_an_error_for_ever_not_a_hang() {
        let pool = Pool::new(2).unwrap();
        let result = pool.run(&|team| {
            assert!(team.worker == 0, "injected");
            team.barrier();
        });
        assert!(matches!(result, Err(Error::WorkerPanicked)));
        assert!(matches!(pool.run(&|_| {}), Err(Error::WorkerPanicked)));
    }
}
