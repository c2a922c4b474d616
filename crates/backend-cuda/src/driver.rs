//! CUDA as the driver that a model on a GPU needs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use amoeba_backend::DeviceKind;
use amoeba_backend::gpu::{self, Driver, Error, Fault, List, Plain, Purpose, Transfer};
use amoeba_kernels::gpu::{Call, Unit};
use cudarc::driver::DriverError;

use crate::compile::Compiler;
use crate::sys::{Arena, Code, Gpu, Graph, Launch, Pinned, TokenRing, put_all, told};

/// Device memory left alone: loaded code, the driver's own, and what else is on the device needs some.
const SPARE: usize = 256 << 20;

/// What launches of decode steps keep of L1 as shared memory: 132 of 228 KiB on Hopper (`Site::spread` of the
/// kernels counts on it). A multiprocessor changes that only while it is idle, so launches that want
/// different shares cannot overlap; and loads on their way need L1.
const SHARED_PERCENT: i32 = 57;

/// A CUDA device with the kernels loaded so far. Fields that use the device come before what they use.
pub struct CudaDriver {
    /// Loaded units; those that stamp their times are others.
    codes: BTreeMap<(bool, Unit), Code>,
    compiler: Compiler,
    pub(crate) gpu: Gpu,
    /// "NVIDIA H200, sm_90a, CUDA 13.0".
    facts: String,
    notice: fn(&str),
}

fn fault(error: DriverError) -> Fault {
    Fault(told(error))
}

impl CudaDriver {
    /// With nothing loaded. `notice` is called with the reason why compiled code cannot be kept.
    pub(crate) fn new(gpu: Gpu, compiler: Compiler, facts: String, notice: fn(&str)) -> CudaDriver {
        CudaDriver { codes: BTreeMap::new(), compiler, gpu, facts, notice }
    }
}

impl Driver for CudaDriver {
    type Memory = Arena;
    type Host<T: Plain> = Pinned<T>;
    type Launch = Launch;
    type Graph = Graph;
    type Ring = TokenRing;

    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda(self.gpu.info.index)
    }

    fn names(&self) -> (String, String) {
        (format!("cuda:{}", self.gpu.info.index), self.facts.clone())
    }

    fn arch(&self) -> &str {
        &self.compiler.arch
    }

    fn overlaps(&self) -> bool {
        self.gpu.overlap
    }

    fn bind(&self) -> Result<(), Fault> {
        self.gpu.bind().map_err(fault)
    }

    fn free_bytes(&self) -> Result<usize, Fault> {
        let (free, _) = self.gpu.memory().map_err(fault)?;
        Ok(free.saturating_sub(SPARE))
    }

    fn another_queue(&self) -> Result<CudaDriver, Fault> {
        let (compiler, facts) = (self.compiler.clone(), self.facts.clone());
        let gpu = self.gpu.another_stream().map_err(fault)?;
        Ok(CudaDriver::new(gpu, compiler, facts, self.notice))
    }

    fn wait(&self) -> Result<(), Fault> {
        self.gpu.wait().map_err(fault)
    }

    fn reserve(&self, bytes: usize) -> Result<Arc<Arena>, Fault> {
        Arena::new(&self.gpu, bytes).map_err(fault)
    }

    fn address(memory: &Arena) -> u64 {
        memory.base()
    }

    fn zero(&self, memory: &Arena, range: Range<usize>) -> Result<(), Fault> {
        memory.zero(range).map_err(fault)
    }

    fn host<T: Plain>(&self, len: usize) -> Result<Pinned<T>, Fault> {
        Pinned::zeroed(&self.gpu, len).map_err(fault)
    }

    fn fill<T: Plain>(host: &mut Pinned<T>) -> Result<&mut [T], Fault> {
        host.fill().map_err(fault)
    }

    fn get<T: Plain>(host: &Pinned<T>) -> &[T] {
        host.get()
    }

    fn send<T: Plain>(
        &self,
        from: &mut Pinned<T>,
        count: usize,
        to: &Arena,
        offset: usize,
    ) -> Result<(), Fault> {
        from.send(count, to, offset).map_err(fault)
    }

    fn fetch<T: Plain>(
        &self,
        to: &mut Pinned<T>,
        count: usize,
        from: &Arena,
        offset: usize,
    ) -> Result<(), Fault> {
        to.fetch(count, from, offset).map_err(fault)
    }

    fn prepare(&mut self, calls: &[&Call], traced: bool) -> Result<(), Error> {
        let units: BTreeSet<&Unit> = calls.iter().map(|call| &call.unit).collect();
        let known = |unit: &Unit| self.codes.contains_key(&(traced, unit.clone()));
        let units: Vec<&Unit> = units.into_iter().filter(|unit| !known(unit)).collect();
        if units.is_empty() {
            return Ok(());
        }
        let codes = self.compiler.all(&units, traced, self.notice)?;
        for (unit, code) in units.into_iter().zip(codes) {
            let code = Code::load(&self.gpu, code).map_err(fault);
            let code = code.map_err(gpu::Error::driver("loading kernels"))?;
            self.codes.insert((traced, unit.clone()), code);
        }
        Ok(())
    }

    fn launch(&self, call: &Call, memories: &[Arc<Arena>], purpose: Purpose) -> Result<Launch, Error> {
        let code = &self.codes[&(purpose.traced, call.unit.clone())];
        let made = code.launch(call, memories).and_then(|launch| {
            if purpose.decode {
                launch.keep_shared(SHARED_PERCENT)?;
            }
            Ok(launch)
        });
        made.map_err(fault).map_err(Error::driver(call.kernel))
    }

    fn put<'a>(&self, launches: impl IntoIterator<Item = &'a Launch>) -> Result<(), Fault> {
        put_all(&self.gpu, launches).map_err(fault)
    }

    fn capture(&self, copy: Option<Transfer<'_, Self>>, lists: Vec<List<Self>>) -> Result<Graph, Fault> {
        let copy = copy.map(|Transfer { from, count, to, offset }| (from, count, to, offset));
        Graph::capture(&self.gpu, copy, lists).map_err(fault)
    }

    fn replay(&self, graph: &mut Graph, from: Option<&mut Pinned<u32>>) -> Result<(), Fault> {
        graph.go(from).map_err(fault)
    }

    fn ring(&self, entries: usize, words: usize) -> Result<TokenRing, Fault> {
        TokenRing::new(&self.gpu, entries, words).map_err(fault)
    }

    fn ring_address(ring: &TokenRing) -> u64 {
        ring.address()
    }

    fn ring_written(&self, ring: &mut TokenRing, entry: usize) -> Result<(), Fault> {
        ring.written(entry).map_err(fault)
    }

    fn ring_read(&self, ring: &mut TokenRing, entry: usize, words: &mut [u32]) -> Result<(), Fault> {
        ring.read(entry, words).map_err(fault)
    }
}
