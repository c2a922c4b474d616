//! Kernels: loaded from machine code, launched one by one or as a captured graph.

use std::ffi::c_void;
use std::sync::Arc;

use amoeba_kernels::gpu::Call;
use cudarc::driver::sys::{
    CUfunction_attribute_enum as Attribute, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use cudarc::driver::{CudaFunction, CudaGraph, CudaModule, DriverError, sys};
use cudarc::nvrtc::Ptx;

use super::Gpu;
use super::memory::{Arena, Pinned};

/// Dynamic shared memory that needs no asking for.
const SHARED_FREE: u32 = 48 << 10;

/// Loaded machine code.
#[derive(Clone)]
pub struct Code(Arc<CudaModule>);

impl Code {
    /// Loads a CUBIN.
    ///
    /// # Errors
    /// It is damaged, or made for another device.
    pub fn load(gpu: &Gpu, cubin: Vec<u8>) -> Result<Code, DriverError> {
        Ok(Code(gpu.context.load_module(Ptx::from_binary(cubin))?))
    }

    /// A kernel with its arguments, for launching again and again; they point into those arenas.
    ///
    /// # Errors
    /// There is no such kernel, its arguments are of another size, or it takes more shared memory than there
    /// is.
    pub fn launch(&self, call: &Call, arenas: &[Arc<Arena>]) -> Result<Launch, DriverError> {
        let function = self.0.load_function(call.kernel)?;
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function was loaded just now; drivers from 12.4 on have this call, and it writes two
        // sizes.
        unsafe { sys::cuFuncGetParamInfo(function.cu_function(), 0, &raw mut offset, &raw mut size) }
            .result()?;
        if size != call.args.len() {
            return Err(DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE));
        }
        if call.shared > SHARED_FREE {
            function.set_attribute(
                Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                call.shared as i32,
            )?;
        }
        Ok(Launch {
            function,
            grid: call.grid,
            block: call.block,
            shared: call.shared,
            args: call.args.words().into(),
            _arenas: arenas.to_vec(),
        })
    }
}

/// A kernel with its arguments. It keeps its code and the memory it works on.
pub struct Launch {
    function: CudaFunction,
    grid: [u32; 3],
    block: u32,
    shared: u32,
    args: Box<[u64]>,
    _arenas: Vec<Arc<Arena>>,
}

impl Launch {
    /// Has multiprocessors keep `percent` of what L1 and shared memory share for the latter, or what a
    /// block needs, if more.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn keep_shared(&self, percent: i32) -> Result<(), DriverError> {
        self.function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, percent)
    }

    /// Puts it on the stream (or into the graph being captured there), after all that is there.
    ///
    /// # Errors
    /// The driver refuses, or an earlier kernel failed.
    pub fn go(&self, gpu: &Gpu) -> Result<(), DriverError> {
        self.put(gpu, &mut [])
    }

    /// The same, but it may begin while the kernel before it ends. That must be a kernel, not a copy, and
    /// both must call `begin()`, which waits for the one before, ahead of all that it may write or still be
    /// reading.
    fn go_overlapping(&self, gpu: &Gpu) -> Result<(), DriverError> {
        let value = sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 };
        let id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        self.put(gpu, &mut [sys::CUlaunchAttribute { id, pad: [0; 4], value }])
    }

    /// The same for a kernel with barriers of the grid: all its blocks are on the device at once, or the
    /// driver refuses.
    ///
    /// # Errors
    /// The grid does not fit the device, or an earlier kernel failed.
    pub fn go_together(&self, gpu: &Gpu) -> Result<(), DriverError> {
        let value = sys::CUlaunchAttributeValue { cooperative: 1 };
        let id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        self.put(gpu, &mut [sys::CUlaunchAttribute { id, pad: [0; 4], value }])
    }

    fn put(&self, gpu: &Gpu, attributes: &mut [sys::CUlaunchAttribute]) -> Result<(), DriverError> {
        let [x, y, z] = self.grid;
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: self.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared,
            hStream: gpu.stream.cu_stream(),
            attrs: if attributes.is_empty() { std::ptr::null_mut() } else { attributes.as_mut_ptr() },
            numAttrs: attributes.len() as u32,
        };
        let args = &mut [self.args.as_ptr().cast_mut().cast::<c_void>()];
        let function = self.function.cu_function();
        // SAFETY: the function's module is kept by `function`. Its one argument is a struct of exactly that
        // size (checked by `Code::launch`), read, as are configuration and attributes, before this returns.
        // The struct was made by `amoeba_kernels::cuda` from addresses inside the arenas and the sizes of
        // what was laid out there; the arenas are kept by `_arenas` and wait for the stream when dropped.
        unsafe { sys::cuLaunchKernelEx(&raw const config, function, args.as_mut_ptr(), std::ptr::null_mut()) }
            .result()
    }
}

/// Puts launches on the stream (or into the graph being captured there), the first after all that is there,
/// each further one overlapping with the end of the one before where the device does that.
///
/// # Errors
/// The driver refuses, or an earlier kernel failed.
pub fn put_all<'a>(gpu: &Gpu, launches: impl IntoIterator<Item = &'a Launch>) -> Result<(), DriverError> {
    let mut launches = launches.into_iter();
    launches.next().map_or(Ok(()), |first| first.go(gpu))?;
    launches.try_for_each(|launch| if gpu.overlap { launch.go_overlapping(gpu) } else { launch.go(gpu) })
}

/// A copy, if any, and launches: captured once, replayed as one.
pub struct Graph {
    graph: CudaGraph,
    /// What the captured copy reads: address and elements.
    from: Option<(usize, usize)>,
    /// Code and memory that the graph's nodes use.
    _lists: Vec<Arc<[Launch]>>,
}

// SAFETY: a graph may be used from any thread, by one at a time: it is launched through `&mut`, and its
// driver objects belong to the context, not to a thread.
unsafe impl Send for Graph {}

impl Graph {
    /// Captures a copy of the first elements of host memory to a place of an arena, then launches.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn capture(
        gpu: &Gpu,
        mut copy: Option<(&mut Pinned<u32>, usize, &Arena, usize)>,
        lists: Vec<Arc<[Launch]>>,
    ) -> Result<Graph, DriverError> {
        if let Some((from, ..)) = &mut copy {
            from.fill()?; // no copy under way
        }
        gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let sent = copy.as_mut().map_or(Ok(()), |(from, count, to, offset)| from.send(*count, to, *offset));
        let put = sent.and_then(|()| put_all(gpu, lists.iter().flat_map(|list| list.iter())));
        let ended = gpu.stream.end_capture(CUgraphInstantiate_flags(0));
        let from = copy.map(|(from, count, ..)| {
            from.settled(); // nothing ran
            (from.address(), count)
        });
        put?;
        let graph = ended?.ok_or(DriverError(sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED))?;
        graph.upload()?;
        Ok(Graph { graph, from, _lists: lists })
    }

    /// Puts everything on the stream, the copy from `from` included.
    ///
    /// # Errors
    /// The driver refuses, or an earlier kernel failed.
    ///
    /// # Panics
    /// It was captured with other memory (a caller's bug).
    pub fn go(&mut self, from: Option<&mut Pinned<u32>>) -> Result<(), DriverError> {
        match (self.from, from) {
            (None, None) => {}
            (Some((address, count)), Some(from)) if address == from.address() && count <= from.len() => {
                from.launched();
            }
            _ => panic!("a graph captured with other memory"),
        }
        self.graph.launch()
    }
}
