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

/// Page-locked memory in equal parts, each of which kernels write in turn and the host reads once they have.
pub struct Mails {
    gpu: Gpu,
    data: *mut u32,
    words: usize,
    /// By part: behind what writes it.
    written: Vec<CudaEvent>,
}

// SAFETY: the memory is owned, of numbers, and locked in place for every thread of the process.
unsafe impl Send for Mails {}

impl Mails {
    /// So many parts of so many words.
    ///
    /// # Errors
    /// The driver does not give as much.
    pub fn new(gpu: &Gpu, parts: usize, words: usize) -> Result<Mails, DriverError> {
        gpu.bind()?;
        let written = (0..parts).map(|_| gpu.context.new_event(None)).collect::<Result<_, _>>()?;
        // SAFETY: the context is bound; freed once, when dropped.
        let data = unsafe { result::malloc_host(parts * words * 4, 0) }?.cast::<u32>();
        // SAFETY: the driver gave so many bytes, aligned to a page.
        unsafe { data.write_bytes(0, parts * words) };
        Ok(Mails { gpu: gpu.clone(), data, words, written })
    }

    /// Where kernels find it: with unified addresses, which every 64-bit driver has, that is where the host does.
    pub fn address(&self) -> u64 {
        self.data as u64
    }

    /// Everything that writes a part is on the stream now.
    ///
    /// # Errors
    /// The device failed.
    pub fn sent(&mut self, part: usize) -> Result<(), DriverError> {
        self.written[part].record(&self.gpu.stream)
    }

    /// Waits until a part is written, and for nothing that was put on the stream later; its first words. What is on the
    /// stream may not write it meanwhile: there are more parts than writes that were not waited for.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait<const N: usize>(&mut self, part: usize) -> Result<[u32; N], DriverError> {
        assert!(part < self.written.len() && N <= self.words);
        self.written[part].synchronize()?;
        // SAFETY: inside the memory (just checked), initialised, aligned to 4. Its writers have ended, as the event tells;
        // others of the same part come only after this was read (see above), and volatile reads take what is there.
        Ok(std::array::from_fn(|i| unsafe { self.data.add(part * self.words + i).read_volatile() }))
    }
}

impl Drop for Mails {
    fn drop(&mut self) {
        // Nothing that was launched may still be writing. Errors cannot be told from here.
        if self.gpu.bind().is_ok() && self.gpu.wait().is_ok() {
            // SAFETY: reserved by `new`, freed here only, and nothing is running.
            let _ = unsafe { result::free_host(self.data.cast()) };
        }
    }
}
