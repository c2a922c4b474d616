//! Memory on the device and memory of the host that the device may copy by itself. Places are checked here,
//! so that no copy leaves what was reserved.

use std::ops::Range;
use std::sync::Arc;

use amoeba_backend::gpu::Plain;
use cudarc::driver::{DriverError, result};

use super::Gpu;

/// One piece of device memory that holds everything a model needs.
pub struct Arena {
    gpu: Gpu,
    base: u64,
    len: usize,
}

impl Arena {
    /// Reserves it; its contents are undefined.
    ///
    /// # Errors
    /// The driver does not give as much.
    pub fn new(gpu: &Gpu, len: usize) -> Result<Arc<Arena>, DriverError> {
        gpu.bind()?;
        // SAFETY: the context is bound; the piece is freed once, when dropped.
        let base = unsafe { result::malloc_sync(len.max(1)) }?;
        Ok(Arc::new(Arena { gpu: gpu.clone(), base, len }))
    }

    /// Address of its first byte.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.len
    }

    fn at(&self, offset: usize, len: usize) -> u64 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} bytes at {offset} of {}",
            self.len
        );
        self.base + offset as u64
    }

    /// Sets bytes to zero, in the order of the stream.
    ///
    /// # Errors
    /// The device failed.
    pub fn zero(&self, range: Range<usize>) -> Result<(), DriverError> {
        let at = self.at(range.start, range.len());
        self.gpu.bind()?;
        // SAFETY: the bytes lie in this piece (just checked), which lives as long as its stream's work: see
        // `drop`.
        unsafe { result::memset_d8_async(at, 0, range.len(), self.gpu.stream.cu_stream()) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Nothing that was launched may still be using it. Errors cannot be reported from
        // here, and the process's end frees all.
        if self.gpu.bind().is_ok() && self.gpu.wait().is_ok() {
            // SAFETY: reserved by `new`, freed here only, and nothing is running.
            let _ = unsafe { result::free_sync(self.base) };
        }
    }
}

/// Page-locked host memory that is copied to or from the device on the model's own stream. A copy is waited
/// for before the memory can be seen again.
pub struct Pinned<T: Plain> {
    gpu: Gpu,
    data: *mut T,
    len: usize,
    in_flight: bool,
}

// SAFETY: the memory is owned, of numbers, and locked in place for every thread of the process.
unsafe impl<T: Plain> Send for Pinned<T> {}

impl<T: Plain> Pinned<T> {
    /// Zeros.
    ///
    /// # Errors
    /// The driver does not give as much.
    pub fn zeroed(gpu: &Gpu, len: usize) -> Result<Pinned<T>, DriverError> {
        gpu.bind()?;
        let len = len.max(1);
        // SAFETY: the context is bound; freed once, when dropped.
        let data = unsafe { result::malloc_host(len * size_of::<T>(), 0) }?.cast::<T>();
        // SAFETY: the driver gave that many bytes, aligned to a page; zero bits are a value of every `Plain`.
        unsafe { data.write_bytes(0, len) };
        Ok(Pinned { gpu: gpu.clone(), data, len, in_flight: false })
    }

    /// Waits for a copy that was not waited for.
    fn settle(&mut self) -> Result<(), DriverError> {
        if self.in_flight {
            self.gpu.wait()?;
            self.in_flight = false;
        }
        Ok(())
    }

    /// All of it, to be filled.
    ///
    /// # Errors
    /// The device failed while copying from it.
    pub fn fill(&mut self) -> Result<&mut [T], DriverError> {
        self.settle()?;
        // SAFETY: `len` initialised elements of our own, and no copy is under way.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.data, self.len) })
    }

    /// What [`Pinned::fetch`] brought; zeros before.
    pub fn get(&self) -> &[T] {
        assert!(!self.in_flight, "seen before the copy was waited for");
        // SAFETY: `len` initialised elements of our own, and no copy is under way.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    /// Starts a copy of the first `count` elements to the device.
    ///
    /// # Errors
    /// The device failed.
    pub fn send(&mut self, count: usize, arena: &Arena, offset: usize) -> Result<(), DriverError> {
        let (len, stream) = (count.min(self.len), self.gpu.stream.cu_stream());
        let to = arena.at(offset, len * size_of::<T>());
        self.in_flight = true;
        // SAFETY: both places are as long; ours stays locked and untouched until the stream is waited for
        // (`in_flight`, `drop`).
        unsafe { result::memcpy_htod_async(to, std::slice::from_raw_parts(self.data, len), stream) }
    }

    /// Copies `count` elements from the device to the front and waits for them, and so for all that the
    /// stream had to do.
    ///
    /// # Errors
    /// The device failed, now or in what it had to do before.
    pub fn fetch(&mut self, count: usize, arena: &Arena, offset: usize) -> Result<(), DriverError> {
        self.settle()?;
        let (len, stream) = (count.min(self.len), self.gpu.stream.cu_stream());
        let from = arena.at(offset, len * size_of::<T>());
        self.in_flight = true;
        // SAFETY: both places are as long; ours is untouched until the wait below has returned.
        unsafe { result::memcpy_dtoh_async(std::slice::from_raw_parts_mut(self.data, len), from, stream) }?;
        self.settle()
    }

    /// A copy from here is on the stream that `send` did not put there.
    pub(super) fn launched(&mut self) {
        self.in_flight = true;
    }

    /// The stream was waited for by other means, or did not run.
    pub(super) fn settled(&mut self) {
        self.in_flight = false;
    }

    pub(super) fn address(&self) -> usize {
        self.data.addr()
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl<T: Plain> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() && self.gpu.wait().is_ok() {
            // SAFETY: reserved by `zeroed`, freed here only, and no copy is under way.
            let _ = unsafe { result::free_host(self.data.cast()) };
        }
    }
}
