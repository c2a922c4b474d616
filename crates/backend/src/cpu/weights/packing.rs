//! Packs stored matrices on several threads. What has been packed leaves memory again: the pages of the file
//! that are resident at a time are those of one job a thread.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use amoeba_checkpoint::{Checkpoint, Matrix};
use amoeba_kernels::linear::{Layout, Packed, Piece};
use amoeba_kernels::simd::LANES;

/// Most stored bytes of a job, unless one block of sixteen rows has more.
const JOB_BYTES: usize = 1 << 20;
/// Jobs that each thread gets of a tensor, at least, so that all end at about the same time.
const JOBS_PER_THREAD: usize = 4;

/// One tensor as stored, and how it is to be packed.
pub struct Source<'a> {
    /// Its name without `.weight`.
    pub path: &'a str,
    /// One matrix, or all experts of a stack.
    pub matrices: Vec<Matrix<'a>>,
    /// Where everything goes.
    pub layout: Layout,
}

impl<'a> Source<'a> {
    /// Equal matrices, their columns in `slices` slices.
    pub fn new(path: &'a str, matrices: Vec<Matrix<'a>>, slices: usize) -> Source<'a> {
        let layout = Layout::sliced(matrices[0].rows, matrices[0].cols, matrices[0].format, slices);
        Source { path, matrices, layout }
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.matrices.iter().map(Matrix::bytes).sum()
    }

    /// Packs everything with `threads` threads. `progress` is called with the stored bytes packed so far.
    pub fn pack(&self, checkpoint: &Checkpoint, threads: usize, progress: &mut dyn FnMut(usize)) -> Packed {
        let Source { matrices, layout, .. } = self;
        let mut packed = Packed::zeroed(*layout, matrices.len());
        let block_bytes = matrices[0].rows(0, LANES.min(layout.rows)).bytes().max(1);
        let job_bytes = JOB_BYTES.min(self.bytes() / (JOBS_PER_THREAD * threads));
        let per_job = (job_bytes / block_bytes).clamp(1, layout.blocks());
        let pieces = packed.pieces_mut();
        let jobs = Mutex::new(Jobs { pieces, layout: *layout, per_job, ready: VecDeque::new() });
        let done = AtomicUsize::new(0);
        let work = |progress: &mut dyn FnMut(usize)| {
            loop {
                let job = jobs.lock().ok().and_then(|mut jobs| jobs.next());
                let Some(job) = job else { return };
                let (first, last) = (job[0].block, job[job.len() - 1].block);
                let matrix = &matrices[job[0].matrix];
                job.into_iter().for_each(|piece| layout.pack_piece(matrix, piece));
                let end = layout.rows.min((last + 1) * LANES);
                let rows = matrix.rows(first * LANES, end - first * LANES);
                release(checkpoint, &rows);
                progress(done.fetch_add(rows.bytes(), Relaxed) + rows.bytes());
            }
        };
        let jobs_total = matrices.len() * layout.blocks().div_ceil(per_job);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(jobs_total) {
                scope.spawn(|| work(&mut |_| {}));
            }
            work(progress);
        });
        drop(jobs);
        // A page fault brings the neighbours along, those of finished jobs too.
        matrices.iter().for_each(|matrix| release(checkpoint, matrix));
        packed
    }
}

fn release(checkpoint: &Checkpoint, matrix: &Matrix<'_>) {
    [matrix.weight, matrix.scales, matrix.biases].into_iter().for_each(|part| checkpoint.release(part));
}

/// Deals out pieces. A job is some consecutive blocks of one matrix in all slices, so that their rows, which
/// lie side by side in the file, are not needed again.
struct Jobs<'a, I> {
    /// By matrix, then slice, then block.
    pieces: I,
    layout: Layout,
    /// Blocks of a job.
    per_job: usize,
    /// Jobs of the current matrix.
    ready: VecDeque<Vec<Piece<'a>>>,
}

impl<'a, I: Iterator<Item = Piece<'a>>> Jobs<'a, I> {
    fn next(&mut self) -> Option<Vec<Piece<'a>>> {
        if self.ready.is_empty() {
            for piece in self.pieces.by_ref().take(self.layout.slices() * self.layout.blocks()) {
                let job = piece.block / self.per_job;
                if job == self.ready.len() {
                    self.ready.push_back(Vec::new()); // the first slice meets the jobs in order
                }
                self.ready[job].push(piece);
            }
        }
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amoeba_checkpoint::{Float, Format};

    #[test]
    fn jobs_hold_every_piece_once_and_whole_rows() {
        let format = Format::Affine { bits: 4, group: 32, scale: Float::BF16 };
        for (rows, cols, slices, per_job) in
            [(100, 256, 4, 3), (16, 32, 1, 1), (160, 64, 2, 100), (33, 96, 3, 1)]
        {
            let layout = Layout::sliced(rows, cols, format, slices);
            let mut packed = Packed::zeroed(layout, 3);
            let mut jobs = Jobs { pieces: packed.pieces_mut(), layout, per_job, ready: VecDeque::new() };
            let mut seen = Vec::new();
            while let Some(job) = jobs.next() {
                let (first, last) = (job[0].block, job[job.len() - 1].block);
                assert!(first.is_multiple_of(per_job) && last - first < per_job);
                assert_eq!(job.len(), (last - first + 1) * layout.slices());
                seen.extend(job.iter().map(|piece| (piece.matrix, piece.slice, piece.block)));
            }
            seen.sort_unstable();
            let (slices, blocks) = (layout.slices(), layout.blocks());
            let all = (0..3).flat_map(|m| (0..slices).flat_map(move |s| (0..blocks).map(move |b| (m, s, b))));
            assert!(seen.into_iter().eq(all), "{layout:?}");
        }
    }
}
