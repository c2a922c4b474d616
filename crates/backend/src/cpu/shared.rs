//! Buffers that workers write side by side.

use std::alloc::Layout;
use std::cell::UnsafeCell;

use amoeba_plan::BufferId;

use crate::{Buffers, Error};

/// Values that are zero when all their bytes are.
///
/// # Safety
/// All-zero bytes are a value of the type.
pub unsafe trait Zeroable: Copy {}
// SAFETY: positive zero.
unsafe impl Zeroable for f32 {}
// SAFETY: any bytes are.
unsafe impl Zeroable for [u8; 2] {}

/// `rows × width` values that several workers may write at once, each its own part.
///
/// The discipline that makes this sound: within a phase no two workers touch the same elements unless all of
/// them only read; a phase starts when all items of the one before are done. `amoeba_backend` is the only
/// user.
pub struct Shared<T = f32> {
    data: UnsafeCell<Vec<T>>,
    /// Values per row.
    pub width: usize,
}

// SAFETY: access follows the discipline above; the pool orders the phases.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T: Zeroable> Shared<T> {
    /// Zeroed rows; the system maps large ones only when written.
    ///
    /// # Errors
    /// More than can be reserved.
    pub fn zeroed(rows: usize, width: usize) -> Result<Shared<T>, Error> {
        let len = rows.checked_mul(width).filter(|len| *len <= isize::MAX as usize / size_of::<T>());
        let len = len.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        if len == 0 {
            return Ok(Shared { data: UnsafeCell::new(Vec::new()), width });
        }
        let layout = Layout::array::<T>(len).map_err(|_| Error::OutOfMemory { bytes: usize::MAX })?;
        // SAFETY: the layout is not empty; the pointer is checked, and zero bytes are zeros. The vector takes
        // over an allocation of the global allocator with exactly its layout.
        let data = unsafe {
            let pointer = std::alloc::alloc_zeroed(layout).cast::<T>();
            if pointer.is_null() {
                return Err(Error::OutOfMemory { bytes: layout.size() });
            }
            Vec::from_raw_parts(pointer, len, len)
        };
        Ok(Shared { data: UnsafeCell::new(data), width })
    }

    /// Everything, for reading.
    pub fn all(&self) -> &[T] {
        // SAFETY: callers read only what no worker writes in this phase.
        unsafe { &*self.data.get() }
    }

    /// One row, for reading.
    pub fn row(&self, row: usize) -> &[T] {
        &self.all()[row * self.width..][..self.width]
    }

    /// `len` elements of a row from `first`, for writing.
    #[allow(clippy::mut_from_ref, reason = "the point of this type; see its discipline")]
    pub fn part_mut(&self, row: usize, first: usize, len: usize) -> &mut [T] {
        let start = row * self.width + first;
        // SAFETY: the vector is never resized; `get` through the pointer's length keeps the range inside, and
        // by the discipline this worker alone touches these elements in this phase.
        unsafe {
            let data: *mut Vec<T> = self.data.get();
            let total = (*data).len();
            assert!(start + len <= total, "part {start}+{len} of {total}");
            std::slice::from_raw_parts_mut((*data).as_mut_ptr().add(start), len)
        }
    }

    /// Writes values `stride` apart from element `first` of a row on. Workers may do this side by side in one
    /// region as long as the elements differ.
    pub fn scatter(&self, row: usize, first: usize, stride: usize, values: impl Iterator<Item = T>) {
        let start = row * self.width + first;
        for (i, value) in values.enumerate() {
            // SAFETY: the index is checked against the vector, which is never resized; no reference to the
            // element exists in this phase, by the discipline.
            unsafe {
                let data: *mut Vec<T> = self.data.get();
                assert!(start + i * stride < (*data).len(), "element {start}+{i}·{stride}");
                (*data).as_mut_ptr().add(start + i * stride).write(value);
            }
        }
    }

    /// One row, for writing.
    #[allow(clippy::mut_from_ref, reason = "the point of this type; see its discipline")]
    pub fn row_mut(&self, row: usize) -> &mut [T] {
        self.part_mut(row, 0, self.width)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.all())
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

    /// All values, while no worker runs.
    pub fn all(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(UnsafeCell::get_mut)
    }

    /// The first value, for reading by all once its writer is done.
    pub fn shared(&self) -> &T {
        // SAFETY: by the discipline nobody writes it in this phase.
        unsafe { &*self.0[0].get() }
    }
}
