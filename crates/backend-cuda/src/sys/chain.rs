//! Steps that follow one another without the host: a graph that copies nothing, and memory of the host that its kernels write.

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaEvent, CudaGraph, DriverError, result};

use super::Gpu;
use super::launch::{Launch, put_all};

/// Launches captured once, replayed as one.
pub struct Chain {
    graph: CudaGraph,
    /// Code and memory that the graph's nodes use.
    lists: Vec<Arc<[Launch]>>,
}

// SAFETY: as for `Graph`: launched through `&mut`, and its driver objects belong to the context, not to a thread.
unsafe impl Send for Chain {}

impl Chain {
    /// Captures launches.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn capture(gpu: &Gpu, lists: Vec<Arc<[Launch]>>) -> Result<Chain, DriverError> {
        gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let put = put_all(gpu, lists.iter().flat_map(|list| list.iter()));
        let ended = gpu.stream.end_capture(CUgraphInstantiate_flags(0));
        put?;
        let graph = ended?.ok_or(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED))?;
        graph.upload()?;
        Ok(Chain { graph, lists })
    }

    /// How many.
    pub fn launches(&self) -> usize {
        self.lists.iter().map(|list| list.len()).sum()
    }

    /// Puts everything on the stream.
    ///
    /// # Errors
    /// The driver refuses, or an earlier kernel failed.
    pub fn go(&mut self) -> Result<(), DriverError> {
        self.graph.launch()
    }
}

/// Page-locked memory in entries of some rows, which kernels write one after another and the host reads once they have.
pub struct TokenRing {
    gpu: Gpu,
    data: *mut u32,
    rows: usize,
    words: usize,
    /// By entry: after what writes it.
    written: Vec<CudaEvent>,
}

// SAFETY: the memory is owned, of numbers, and locked in place for every thread of the process.
unsafe impl Send for TokenRing {}

impl TokenRing {
    /// Entries of rows of words.
    ///
    /// # Errors
    /// The driver does not give as much.
    pub fn new(gpu: &Gpu, [entries, rows, words]: [usize; 3]) -> Result<TokenRing, DriverError> {
        gpu.bind()?;
        let written = (0..entries).map(|_| gpu.context.new_event(None)).collect::<Result<_, _>>()?;
        let count = entries * rows * words;
        // SAFETY: the context is bound; freed once, when dropped.
        let data = unsafe { result::malloc_host(count * 4, 0) }?.cast::<u32>();
        // SAFETY: the driver gave so many bytes, aligned to a page.
        unsafe { data.write_bytes(0, count) };
        Ok(TokenRing { gpu: gpu.clone(), data, rows, words, written })
    }

    /// Where kernels find it: with unified addresses, which every 64-bit driver has, that is where the host does.
    pub fn address(&self) -> u64 {
        self.data as u64
    }

    /// Everything that writes an entry is on the stream now.
    ///
    /// # Errors
    /// The device failed.
    pub fn sent(&mut self, entry: usize) -> Result<(), DriverError> {
        self.written[entry].record(&self.gpu.stream)
    }

    /// Waits until an entry is written, and for nothing that was put on the stream later; the first words of its first
    /// rows, in order. What is on the stream may not write it meanwhile: there are more entries than steps that were not
    /// waited for.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait<const N: usize>(
        &mut self,
        entry: usize,
        rows: usize,
    ) -> Result<impl Iterator<Item = [u32; N]> + '_, DriverError> {
        assert!(entry < self.written.len() && rows <= self.rows && N <= self.words);
        self.written[entry].synchronize()?;
        let ring = &*self;
        // SAFETY: inside the memory (just checked), initialised, aligned to 4. Its writers have ended, as the event tells;
        // others of the same entry come only after this was read (see above), and volatile reads take what is there.
        let word = move |row: usize, i: usize| unsafe {
            ring.data.add((entry * ring.rows + row) * ring.words + i).read_volatile()
        };
        Ok((0..rows).map(move |row| std::array::from_fn(|i| word(row, i))))
    }
}

impl Drop for TokenRing {
    fn drop(&mut self) {
        // Nothing that was launched may still be writing. Errors cannot be told from here.
        if self.gpu.bind().is_ok() && self.gpu.wait().is_ok() {
            // SAFETY: reserved by `new`, freed here only, and nothing is running.
            let _ = unsafe { result::free_host(self.data.cast()) };
        }
    }
}
