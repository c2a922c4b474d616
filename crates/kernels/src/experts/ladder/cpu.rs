//! Buffers that workers write side by side.

use std::cell::UnsafeCell;

/// `rows × width` values that several workers may write at once, each its own part.
///
/// The discipline that makes this sound: within a phase no two workers touch the same elements unless all of
/// them only read; a phase starts when all items of the one before are done. The ladder is the only user.
pub(super) struct Shared {
    data: UnsafeCell<Vec<f32>>,
    /// Values per row.
    pub(super) width: usize,
}

// SAFETY: access follows the discipline above; the barriers of `drive` order the phases.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn zeroed(rows: usize, width: usize) -> Shared {
        Shared { data: UnsafeCell::new(vec![0.0; rows * width]), width }
    }

    /// Everything, for reading.
    pub(super) fn all(&self) -> &[f32] {
        // SAFETY: callers read only what no worker writes in this phase.
        unsafe { &*self.data.get() }
    }

    /// One row, for reading.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.all()[row * self.width..][..self.width]
    }

    /// `len` elements of a row from `first`, for writing.
    #[allow(clippy::mut_from_ref, reason = "the point of this type; see its discipline")]
    pub(super) fn part_mut(&self, row: usize, first: usize, len: usize) -> &mut [f32] {
        let start = row * self.width + first;
        // SAFETY: the vector is never resized; the assertion keeps the range inside, and by the discipline
        // this worker alone touches these elements in this phase.
        unsafe {
            let data: *mut Vec<f32> = self.data.get();
            assert!(start + len <= (*data).len(), "part {start}+{len}");
            std::slice::from_raw_parts_mut((*data).as_mut_ptr().add(start), len)
        }
    }
}
