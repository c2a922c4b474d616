//! Memory of the host that kernels write while the host does something else.

use cudarc::driver::{CudaEvent, DriverError, result};

use super::Gpu;

/// Page-locked memory in entries of some words, which kernels write one after another and the host reads once
/// they have.
pub struct TokenRing {
    gpu: Gpu,
    data: *mut u32,
    words: usize,
    /// By entry: after what writes it.
    written: Vec<CudaEvent>,
}

// SAFETY: the memory is owned, of numbers, and locked in place for every thread of the process.
unsafe impl Send for TokenRing {}

impl TokenRing {
    /// Entries of words.
    ///
    /// # Errors
    /// The driver does not give as much.
    pub fn new(gpu: &Gpu, entries: usize, words: usize) -> Result<TokenRing, DriverError> {
        gpu.bind()?;
        let written = (0..entries).map(|_| gpu.context.new_event(None)).collect::<Result<_, _>>()?;
        let count = entries * words;
        // SAFETY: the context is bound; freed once, when dropped.
        let data = unsafe { result::malloc_host(count * 4, 0) }?.cast::<u32>();
        // SAFETY: the driver gave that many bytes, aligned to a page.
        unsafe { data.write_bytes(0, count) };
        Ok(TokenRing { gpu: gpu.clone(), data, words, written })
    }

    /// Where kernels find it: with unified addresses, which every 64-bit driver has, that is where the host
    /// does.
    pub fn address(&self) -> u64 {
        self.data as u64
    }

    /// Everything that writes an entry is on the stream now.
    ///
    /// # Errors
    /// The device failed.
    pub fn written(&mut self, entry: usize) -> Result<(), DriverError> {
        self.written[entry].record(&self.gpu.stream)
    }

    /// Waits until an entry is written, and for nothing that was put on the stream later; copies its first
    /// words. What is on the stream may not write it meanwhile: there are more entries than steps that were
    /// not read.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&mut self, entry: usize, words: &mut [u32]) -> Result<(), DriverError> {
        assert!(entry < self.written.len() && words.len() <= self.words);
        self.written[entry].synchronize()?;
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: inside the memory (just checked), initialised, aligned to 4. Its writers have ended, as
            // the event says; others of the same entry come only after this was read (see above), and
            // volatile reads take what is there.
            *word = unsafe { self.data.add(entry * self.words + i).read_volatile() };
        }
        Ok(())
    }
}

impl Drop for TokenRing {
    fn drop(&mut self) {
        // Nothing that was launched may still be writing. Errors cannot be reported from here.
        if self.gpu.bind().is_ok() && self.gpu.wait().is_ok() {
            // SAFETY: reserved by `new`, freed here only, and nothing is running.
            let _ = unsafe { result::free_host(self.data.cast()) };
        }
    }
}
