//! Measures the floor: threads bound to cores, started together, timed from the first start to the last end.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use amoeba_kernels::memory::Bytes;
use amoeba_kernels::simd::{Isa, peak};

use super::floor::{Bandwidth, Compute, Floor, SIZES};
use super::watch::{Others, Watch};

/// Bytes that one timed round reads at least, so that starting the threads does not count.
const ROUND_BYTES: usize = 256 << 20;
/// How long one timed round of arithmetic takes about.
const ROUND_TIME: Duration = Duration::from_millis(20);

/// Rounds of a configuration.
fn rounds(quick: bool) -> usize {
    if quick { 3 } else { 9 }
}

/// Everything a floor should have: reads of all [`SIZES`] and rates for every one of `threads`. `others`
/// returns the seconds of processor time that everything but this process has used.
pub fn measure_floor(threads: &[usize], others: Others) -> Floor {
    let watch = Watch::new(others);
    let mut floor = machine();
    for mib in SIZES {
        floor.read.extend(reads(mib, threads, false));
    }
    floor.compute = threads.iter().map(|&threads| compute(threads, false)).collect();
    watched(floor, &watch)
}

fn watched(mut floor: Floor, watch: &Watch) -> Floor {
    let cores = watch.cores();
    floor.read.iter_mut().for_each(|row| row.other_cores = cores);
    floor.compute.iter_mut().for_each(|row| row.other_cores = cores);
    floor
}

/// What `floor` lacks to judge weights of `mib` MiB (one of [`SIZES`]) at `threads`, measured in a hurry;
/// `None` if nothing is missing.
pub fn measure_missing(floor: &Floor, threads: usize, mib: usize, others: Others) -> Option<Floor> {
    let watch = Watch::new(others);
    let mut found = machine();
    if floor.bandwidth(threads, mib).is_none() {
        found.read = reads(mib, &[threads], true);
    }
    if floor.rates(threads).is_none() {
        found.compute = vec![compute(threads, true)];
    }
    (found.read.len() + found.compute.len() > 0).then(|| watched(found, &watch))
}

/// Numbers of threads worth measuring on a machine of `cores` cores: all to eight, then every doubling, and
/// all cores.
pub fn thread_counts(cores: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (1..=cores.min(8)).collect();
    counts.extend((4..32).map(|power| 1 << power).take_while(|&n| n < cores));
    if cores > 8 {
        counts.push(cores);
    }
    counts
}

fn machine() -> Floor {
    Floor { isa: Isa::best().lanes().to_string(), ..Floor::default() }
}

/// Reads one buffer with each number of threads.
fn reads(mib: usize, threads: &[usize], quick: bool) -> Vec<Bandwidth> {
    let mut buffer = Bytes::zeroed(mib << 20);
    // Written, so that every page exists; the same kind of memory as the weights have.
    buffer.as_mut_slice().chunks_mut(64).for_each(|line| line[0] = 1);
    let pieces: Vec<&[u8]> = buffer.as_slice().chunks(PIECE).collect();
    let measure = |&threads: &usize| {
        let (median, best) = read_rate(&pieces, threads, rounds(quick));
        let (gb_s, best_gb_s) = (median / 1e9, best / 1e9);
        Bandwidth { threads, mib, gb_s, best_gb_s, quick, other_cores: None }
    };
    threads.iter().map(measure).collect()
}

/// Bytes that are read in one go.
pub(super) const PIECE: usize = 1 << 20;

/// Bytes a second that `threads` threads read of some pieces over and over, each its own part: median and
/// best round of the fastest order of reading.
pub(super) fn read_rate(pieces: &[&[u8]], threads: usize, rounds: usize) -> (f64, f64) {
    let isa = Isa::best();
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    let (passes, part) = (ROUND_BYTES.div_ceil(bytes.max(1)), pieces.len().div_ceil(threads));
    let of_order = peak::Order::ALL.map(|order| {
        let seconds = together(threads, rounds, |worker| {
            let first = (worker * part).min(pieces.len());
            for piece in (0..passes).flat_map(|_| &pieces[first..(first + part).min(pieces.len())]) {
                black_box(peak::read(isa, black_box(piece), order));
            }
        });
        let rate = |seconds: f64| (passes * bytes) as f64 / seconds;
        (rate(seconds[seconds.len() / 2]), rate(seconds[0]))
    });
    of_order.into_iter().fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
}

fn compute(threads: usize, quick: bool) -> Compute {
    let isa = Isa::best();
    let rate = |work: fn(Isa, usize) -> u64| {
        let mut repeats = 1 << 10;
        while duration(|| work(isa, repeats)) < ROUND_TIME / 8 && repeats < 1 << 21 {
            repeats *= 2;
        }
        let done = (0..8).map(|_| work(isa, 1)).sum::<u64>() as f64 * repeats as f64 * threads as f64;
        let seconds = together(threads, rounds(quick), |_| {
            for _ in 0..8 {
                black_box(work(isa, repeats));
            }
        });
        done / seconds[seconds.len() / 2] / 1e9
    };
    let tiles = |_, rounds| peak::dot_tiles(rounds).unwrap_or_default();
    Compute {
        threads,
        f32_g_s: rate(peak::multiply_add),
        int8_g_s: rate(peak::dot),
        amx_g_s: peak::dot_tiles(1).map(|_| rate(tiles)),
        quick,
        other_cores: None,
    }
}

fn duration(work: impl FnOnce() -> u64) -> Duration {
    let started = Instant::now();
    black_box(work());
    started.elapsed()
}

/// Runs `work` on that many threads at once, `rounds` times after a round to warm up; seconds of each round,
/// sorted.
fn together(threads: usize, rounds: usize, work: impl Fn(usize) + Sync) -> Vec<f64> {
    let gate = Barrier::new(threads);
    let timed = |worker: usize| -> Vec<(Instant, Instant)> {
        peak::pin(worker); // without it the figures only scatter more
        let round = |_| {
            gate.wait();
            let started = Instant::now();
            work(worker);
            (started, Instant::now())
        };
        (0..=rounds).map(round).collect()
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let timed = &timed;
        let workers: Vec<_> = (0..threads).map(|worker| scope.spawn(move || timed(worker))).collect();
        // Nothing in a round panics; a lost worker would hang the others at the gate.
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let seconds = |round: usize| {
        let starts = times.iter().map(|times| times[round].0);
        let ends = times.iter().map(|times| times[round].1);
        let whole = starts.min().zip(ends.max()).map(|(start, end)| end - start);
        whole.map_or(f64::INFINITY, |time| time.as_secs_f64().max(1e-9))
    };
    let mut seconds: Vec<f64> = (1..=rounds).map(seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_counts_go_to_the_last_core() {
        assert_eq!(thread_counts(2), [1, 2]);
        assert_eq!(thread_counts(8), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(thread_counts(24), [1, 2, 3, 4, 5, 6, 7, 8, 16, 24]);
        assert_eq!(thread_counts(32).last_chunk(), Some(&[8, 16, 32]));
    }

    #[test]
    fn only_what_is_missing_is_measured() {
        let none: Others = || None;
        let mut floor = Floor::default();
        let found = measure_missing(&floor, 2, SIZES[0], none).unwrap();
        assert!(
            found.read[0].quick && found.read[0].gb_s > 0.0 && found.compute[0].int8_g_s > 0.0,
            "{found:?}"
        );
        floor.merge(found);
        assert_eq!(measure_missing(&floor, 2, SIZES[0], none), None);
        let found = measure_missing(&floor, 1, SIZES[0], none).unwrap();
        assert_eq!((found.read.len(), found.compute.len()), (1, 1));
    }
}
