//! Buffers that workers write side by side.

use std::alloc::Layout;
use std::cell::UnsafeCell;

use amoeba_plan::BufferId;

use crate::{Buffers, Error};

/// `rows × width` f32 that several workers may write at once, each its own part.
///
/// The discipline that makes this sound: within a phase no two workers touch the same elements unless all
/// of them only read; a phase starts when all items of the one before are done. `amoeba_backend` is the only user.
pub struct Shared {
    data: UnsafeCell<Vec<f32>>,
    /// f32 per row.
    pub width: usize,
}

// SAFETY: access follows the discipline above; the pool orders the phases.
unsafe impl Sync for Shared {}

impl Shared {
    /// Zeroed rows; the system maps large ones only when written.
    ///
    /// # Errors
    /// More than can be reserved.
    pub fn zeroed(rows: usize, width: usize) -> Result<Shared, Error> {
        let len = rows.checked_mul(width).filter(|len| *len <= isize::MAX as usize / 4);
        let len = len.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        if len == 0 {
            return Ok(Shared { data: UnsafeCell::new(Vec::new()), width });
        }
        let layout = Layout::array::<f32>(len).map_err(|_| Error::OutOfMemory { bytes: usize::MAX })?;
        // SAFETY: the layout is not empty; the pointer is checked, and zero bytes are f32 zeros. The vector takes
        // over an allocation of the global allocator with exactly its layout.
        let data = unsafe {
            let pointer = std::alloc::alloc_zeroed(layout).cast::<f32>();
            if pointer.is_null() {
                return Err(Error::OutOfMemory { bytes: layout.size() });
            }
            Vec::from_raw_parts(pointer, len, len)
        };
        Ok(Shared { data: UnsafeCell::new(data), width })
    }

    /// Everything, for reading.
    pub fn all(&self) -> &[f32] {
        // SAFETY: callers read only what no worker writes in this phase.
        unsafe { &*self.data.get() }
    }

    /// One row, for reading.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.all()[row * self.width..][..self.width]
    }

    /// `len` elements of a row from `first`, for writing.
    #[allow(clippy::mut_from_ref, reason = "the point of this type; see its discipline")]
    pub fn part_mut(&self, row: usize, first: usize, len: usize) -> &mut [f32] {
        let start = row * self.width + first;
        // SAFETY: the vector is never resized; `get` through the pointer's length keeps the range inside, and by
        // the discipline this worker alone touches these elements in this phase.
        unsafe {
            let data: *mut Vec<f32> = self.data.get();
            let total = (*data).len();
            assert!(start + len <= total, "part {start}+{len} of {total}");
            std::slice::from_raw_parts_mut((*data).as_mut_ptr().add(start), len)
        }
    }

    /// One row, for writing.
    #[allow(clippy::mut_from_ref, reason = "the point of this type; see its discipline")]
    pub fn row_mut(&self, row: usize) -> &mut [f32] {
        self.part_mut(row, 0, self.width)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.all().len() * 4
    }
}

/// All buffers of a plan.
pub struct Grid(pub Vec<Shared>);

impl Grid {
    /// The buffer.
    pub fn get(&self, id: BufferId) -> &Shared {
        &self.0[id.0]
    }
}

impl Buffers for Grid {
    fn row(&self, buffer: BufferId, row: usize) -> &[f32] {
        self.get(buffer).row(row)
    }
}

/// One value per worker, each used by its worker alone.
pub struct PerWorker<T>(Vec<UnsafeCell<T>>);

// SAFETY: element i is touched by worker i alone, or by all for reading after its writer's phase.
unsafe impl<T: Send + Sync> Sync for PerWorker<T> {}

impl<T> PerWorker<T> {
    /// One value for each of `workers`.
    pub fn new(workers: usize, mut make: impl FnMut() -> T) -> PerWorker<T> {
        PerWorker((0..workers).map(|_| UnsafeCell::new(make())).collect())
    }

    /// The worker's own value.
    #[allow(clippy::mut_from_ref, reason = "the point of this type; see its discipline")]
    pub fn get(&self, worker: usize) -> &mut T {
        // SAFETY: only worker `worker` asks for this element, and it holds one borrow at a time.
        unsafe { &mut *self.0[worker].get() }
    }

    /// The first value, for reading by all once its writer is done.
    pub fn shared(&self) -> &T {
        // SAFETY: by the discipline nobody writes it in this phase.
        unsafe { &*self.0[0].get() }
    }
}
