//! Workers that take items of the current phase until the last phase is done.
//!
//! A phase ends when its *items* are done, not when every worker has arrived: a worker that the system has
//! put aside holds nobody up unless it sits on an item. Claiming an item is one compare-and-swap on a ticket
//! (phase generation, next item), so a late worker can never take from a phase that is over. The worker that
//! finishes a phase prepares the next one, and runs phases of a single item itself without waking anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::{JoinHandle, Thread};

use crate::Error;

/// Spins before a worker without work parks: about the host's work between two tokens.
const IDLE_SPINS: usize = 1 << 13;
/// Spins before the caller, waiting for others' items, gives its core away.
const WAIT_SPINS: usize = 1 << 10;

/// What the workers run.
pub trait Work: Send + Sync + 'static {
    /// Serial start of a phase; returns its number of items (possibly none). No item runs meanwhile.
    fn prepare(&self, phase: usize, worker: usize) -> usize;

    /// Runs one item. Items of a phase run in any order, at the same time.
    fn run(&self, phase: usize, item: usize, worker: usize);
}

struct Shared<W> {
    work: W,
    /// Generation of the phase in the upper half, next item in the lower.
    ticket: AtomicU64,
    /// Generation in the upper half, items of that phase in the lower. It is stored before the ticket, so a
    /// late worker may see it together with the ticket of the phase before: hence the generation.
    limit: AtomicU64,
    /// Items done.
    done: AtomicUsize,
    phase: AtomicUsize,
    /// Phase after the last of this run.
    end: AtomicUsize,
    finished: AtomicBool,
    poisoned: AtomicBool,
    stop: AtomicBool,
    sleeping: Vec<AtomicBool>,
}

/// A team of workers with their work.
pub struct Pool<W: Work> {
    shared: Arc<Shared<W>>,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
}

impl<W: Work> Pool<W> {
    /// `workers` workers, the caller of [`Pool::run`] being number 0.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(work: W, workers: usize) -> Result<Pool<W>, Error> {
        let shared = Arc::new(Shared {
            work,
            ticket: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            phase: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            finished: AtomicBool::new(true),
            poisoned: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleeping: (1..workers.max(1)).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Pool { threads: Vec::new(), handles: Vec::new(), shared };
        for worker in 1..workers {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("amoeba-{worker}"));
            pool.handles.push(builder.spawn(move || shared.serve(worker)).map_err(Error::Threads)?);
        }
        pool.threads = pool.handles.iter().map(|handle| handle.thread().clone()).collect();
        Ok(pool)
    }

    /// Workers, the caller included.
    pub fn size(&self) -> usize {
        self.handles.len() + 1
    }

    /// Phases run by the workers so far, wrapping.
    pub fn published(&self) -> u32 {
        (self.shared.ticket.load(Ordering::Relaxed) >> 32) as u32
    }

    /// The work.
    pub fn work(&self) -> &W {
        &self.shared.work
    }

    /// Runs phases in order and returns when the last is done. One caller at a time: hence `&mut`.
    ///
    /// # Errors
    /// An item panicked, now or before.
    pub fn run(&mut self, phases: std::ops::Range<usize>) -> Result<(), Error> {
        let shared = &*self.shared;
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(Error::WorkerPanicked);
        }
        shared.finished.store(false, Ordering::Relaxed);
        shared.end.store(phases.end, Ordering::Relaxed);
        shared.guarded(|| shared.start(phases.start, 0, &self.threads));
        let mut idle = 0;
        while !shared.finished.load(Ordering::Acquire) {
            if shared.poisoned.load(Ordering::Acquire) {
                return Err(Error::WorkerPanicked);
            }
            if shared.guarded(|| shared.take(0, &self.threads)) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < WAIT_SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if shared.poisoned.load(Ordering::Acquire) { Err(Error::WorkerPanicked) } else { Ok(()) }
    }
}

impl<W: Work> Drop for Pool<W> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.threads.iter().for_each(Thread::unpark);
        for handle in self.handles.drain(..) {
            // A worker that panicked has already poisoned the pool.
            let _ = handle.join();
        }
    }
}

impl<W: Work> Shared<W> {
    /// Publishes the first phase from `phase` on that has more than one item; runs single items on the way.
    fn start(&self, mut phase: usize, worker: usize, threads: &[Thread]) {
        while phase < self.end.load(Ordering::Relaxed) {
            match self.work.prepare(phase, worker) {
                0 => {}
                1 => self.work.run(phase, 0, worker),
                items => {
                    self.done.store(0, Ordering::Relaxed);
                    self.phase.store(phase, Ordering::Relaxed);
                    let generation = (self.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
                    self.limit.store(generation << 32 | items as u64, Ordering::Relaxed);
                    self.ticket.store(generation << 32, Ordering::Release);
                    self.wake(threads);
                    return;
                }
            }
            phase += 1;
        }
        self.finished.store(true, Ordering::Release);
    }

    /// Wakes parked workers. The fence pairs with the one in [`Shared::doze`]: either the sleeper sees the
    /// new ticket, or this sees the sleeper.
    fn wake(&self, threads: &[Thread]) {
        fence(Ordering::SeqCst);
        for (sleeping, thread) in self.sleeping.iter().zip(threads) {
            if sleeping.load(Ordering::Relaxed) {
                thread.unpark();
            }
        }
    }

    /// Claims and runs one item; false if there is none to claim.
    fn take(&self, worker: usize, threads: &[Thread]) -> bool {
        let ticket = self.ticket.load(Ordering::Acquire);
        let Some((item, limit)) = self.next(ticket).filter(|(item, limit)| item < limit) else {
            return false;
        };
        if self.ticket.compare_exchange(ticket, ticket + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return true;
        }
        let phase = self.phase.load(Ordering::Relaxed);
        self.work.run(phase, item, worker);
        if self.done.fetch_add(1, Ordering::AcqRel) + 1 == limit {
            self.start(phase + 1, worker, threads);
        }
        true
    }

    /// Next item and number of items of the ticket's phase; `None` while the phase after it is being
    /// published.
    fn next(&self, ticket: u64) -> Option<(usize, usize)> {
        let limit = self.limit.load(Ordering::Relaxed);
        let low = |x: u64| (x & u64::from(u32::MAX)) as usize;
        (limit >> 32 == ticket >> 32).then(|| (low(ticket), low(limit)))
    }

    /// Runs `f`; a panic poisons the pool instead of unwinding. Returns false then.
    fn guarded<T: Default>(&self, f: impl FnOnce() -> T) -> T {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or_else(|_| {
            self.poisoned.store(true, Ordering::Release);
            T::default()
        })
    }

    /// Life of a worker thread.
    fn serve(&self, worker: usize) {
        let mut idle = 0;
        // Other workers are woken by the caller's thread only through its own list; a worker that publishes a
        // phase leaves sleepers to the caller, who is awake and takes items itself.
        while !self.stop.load(Ordering::Acquire) && !self.poisoned.load(Ordering::Relaxed) {
            if self.guarded(|| self.take(worker, &[])) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < IDLE_SPINS {
                std::hint::spin_loop();
            } else {
                self.doze(worker);
                idle = 0;
            }
        }
    }

    /// Parks until woken, unless there is work already.
    fn doze(&self, worker: usize) {
        let sleeping = &self.sleeping[worker - 1];
        sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let ticket = self.ticket.load(Ordering::Acquire);
        let waiting = self.next(ticket).is_some_and(|(item, limit)| item >= limit);
        if waiting && !self.stop.load(Ordering::Acquire) {
            std::thread::park();
        }
        sleeping.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often each item of each phase ran, and that phases do not overlap.
    struct Counts {
        items: Vec<Vec<AtomicUsize>>,
        panics_at: Option<(usize, usize)>,
    }

    impl Counts {
        fn new(sizes: &[usize], panics_at: Option<(usize, usize)>) -> Counts {
            let phase = |&n: &usize| (0..n).map(|_| AtomicUsize::new(0)).collect();
            Counts { items: sizes.iter().map(phase).collect(), panics_at }
        }
    }

    impl Work for Counts {
        fn prepare(&self, phase: usize, _worker: usize) -> usize {
            let first = self.items[0][0].load(Ordering::Relaxed);
            let done = |phase: &Vec<AtomicUsize>| phase.iter().all(|n| n.load(Ordering::Relaxed) == first);
            assert!(phase == 0 || self.items[..phase].iter().all(done), "phase {phase} started early");
            self.items[phase].len()
        }

        fn run(&self, phase: usize, item: usize, _worker: usize) {
            assert!(self.panics_at != Some((phase, item)), "injected");
            self.items[phase][item].fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_item_runs_once_and_phases_keep_their_order() {
        let sizes = [3, 1, 0, 100, 1, 7, 0, 64];
        for workers in [1, 2, 3, 8] {
            let mut pool = Pool::new(Counts::new(&sizes, None), workers).unwrap();
            for run in 1..=300 {
                pool.run(0..sizes.len()).unwrap();
                let all = pool.work().items.iter().flatten();
                assert!(
                    all.clone().all(|n| n.load(Ordering::Relaxed) == run),
                    "{workers} workers, run {run}"
                );
            }
        }
    }

    #[test]
    fn late_workers_never_take_from_a_phase_that_is_over() {
        // Sizes that grow: a limit read too early would let a late worker run an item twice.
        let sizes = [2, 3, 4, 5, 6, 7, 8, 2, 9, 3, 12, 2, 2, 20];
        let mut pool = Pool::new(Counts::new(&sizes, None), 4).unwrap();
        for run in 1..=20_000 {
            pool.run(0..sizes.len()).unwrap();
            assert!(
                pool.work().items.iter().flatten().all(|n| n.load(Ordering::Relaxed) == run),
                "run {run}"
            );
        }
    }

    #[test]
    fn sleepers_are_woken() {
        let mut pool = Pool::new(Counts::new(&[50], None), 3).unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            pool.run(0..1).unwrap();
        }
    }

    #[test]
    fn a_panic_is_an_error_for_ever_not_a_hang() {
        for panics_at in [(0, 2), (1, 0), (2, 40)] {
            let mut pool = Pool::new(Counts::new(&[3, 1, 100], Some(panics_at)), 2).unwrap();
            assert!(matches!(pool.run(0..3), Err(Error::WorkerPanicked)));
            assert!(matches!(pool.run(0..3), Err(Error::WorkerPanicked)));
        }
    }
}
