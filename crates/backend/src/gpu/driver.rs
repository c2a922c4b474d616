//! What a model needs of a GPU's driver. One implementation is CUDA's; another, in the tests, runs the
//! kernels in emulation on the host.

use std::ops::Range;
use std::sync::Arc;

use amoeba_kernels::gpu::Call;

use super::Error;
use crate::DeviceKind;

/// A failure, in the driver's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

/// Numbers that may be all zero bits and hold no padding.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for f32 {}

/// What a launch is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Purpose {
    /// It leaves its times where its call was [`stamped`](Call::stamped).
    pub traced: bool,
    /// It is of a decode step: few rows, one launch after another.
    pub decode: bool,
}

/// A copy that a graph begins with: the first elements of host memory to a place of device memory.
pub struct Transfer<'a, D: Driver> {
    /// From here.
    pub from: &'a mut D::Host<u32>,
    /// Elements.
    pub count: usize,
    /// To here.
    pub to: &'a D::Memory,
    /// Bytes from its start.
    pub offset: usize,
}

/// Launches in order, made ready once and shared by what replays them.
pub type List<D> = Arc<[<D as Driver>::Launch]>;

/// One queue of a device, on which everything runs in order. Places in memory are checked by the driver: no
/// copy leaves what was reserved; a place outside is a bug and panics.
///
/// Errors of all methods are failures of the device, now or in what the queue had to do before.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Driver: Send + Sync + Sized + 'static {
    /// A piece of device memory; freed when dropped, once nothing uses it.
    type Memory: Send + Sync;
    /// Host memory that the device copies from and to by itself.
    type Host<T: Plain>: Send;
    /// A kernel with its arguments, which keeps its code and the memory it works on.
    type Launch: Send + Sync;
    /// Launches that are replayed as one.
    type Graph: Send;
    /// Host memory in entries, which kernels write one after another and the host reads once they have.
    type Ring: Send;

    /// What it is.
    fn kind(&self) -> DeviceKind;

    /// Its name as it is asked for, such as `cuda:0`, and its properties in words.
    fn names(&self) -> (String, String);

    /// What its machine code is made for, such as `sm_90a`.
    fn arch(&self) -> &str;

    /// Whether a launch may begin while the one before it ends.
    fn overlaps(&self) -> bool {
        false
    }

    /// Lets this thread use the device; called before each step.
    fn bind(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Bytes of device memory that a model may take.
    fn free_bytes(&self) -> Result<usize, Fault>;

    /// Another queue of the same device, for copies.
    fn another_queue(&self) -> Result<Self, Fault>;

    /// Waits until everything on the queue is done.
    fn wait(&self) -> Result<(), Fault>;

    /// Reserves device memory; its contents are undefined.
    fn reserve(&self, bytes: usize) -> Result<Arc<Self::Memory>, Fault>;

    /// Address of the first byte of device memory.
    fn address(memory: &Self::Memory) -> u64;

    /// Sets bytes to zero.
    fn zero(&self, memory: &Self::Memory, range: Range<usize>) -> Result<(), Fault>;

    /// Host memory of `len` zeros.
    fn host<T: Plain>(&self, len: usize) -> Result<Self::Host<T>, Fault>;

    /// All of it, to be filled, once no copy from it is under way.
    fn fill<T: Plain>(host: &mut Self::Host<T>) -> Result<&mut [T], Fault>;

    /// What [`Driver::fetch`] brought; zeros before.
    fn get<T: Plain>(host: &Self::Host<T>) -> &[T];

    /// Puts a copy of the first `count` elements to byte `offset` of `to` on the queue.
    fn send<T: Plain>(
        &self,
        from: &mut Self::Host<T>,
        count: usize,
        to: &Self::Memory,
        offset: usize,
    ) -> Result<(), Fault>;

    /// Copies `count` elements from byte `offset` of `from` to the front of `to`, and waits for all of the
    /// queue.
    fn fetch<T: Plain>(
        &self,
        to: &mut Self::Host<T>,
        count: usize,
        from: &Self::Memory,
        offset: usize,
    ) -> Result<(), Fault>;

    /// Compiles and loads what these calls need and is not there yet.
    fn prepare(&mut self, calls: &[&Call], traced: bool) -> Result<(), Error>;

    /// A launch of a call that was [prepared](Driver::prepare); its arguments point into `memories`.
    fn launch(
        &self,
        call: &Call,
        memories: &[Arc<Self::Memory>],
        purpose: Purpose,
    ) -> Result<Self::Launch, Error>;

    /// Puts launches on the queue: the first after all that is there, each further one overlapping with the
    /// end of the one before where the device [does that](Driver::overlaps).
    fn put<'a>(&self, launches: impl IntoIterator<Item = &'a Self::Launch>) -> Result<(), Fault>;

    /// A graph of a copy, if any, and launches.
    fn capture(&self, copy: Option<Transfer<'_, Self>>, lists: Vec<List<Self>>)
    -> Result<Self::Graph, Fault>;

    /// Puts a graph on the queue; with the memory that its copy reads, if it has one.
    fn replay(&self, graph: &mut Self::Graph, from: Option<&mut Self::Host<u32>>) -> Result<(), Fault>;

    /// A ring of entries of `words` words.
    fn ring(&self, entries: usize, words: usize) -> Result<Self::Ring, Fault>;

    /// Where kernels find the first word of a ring.
    fn ring_address(ring: &Self::Ring) -> u64;

    /// Everything that writes an entry is on the queue now.
    fn ring_written(&self, ring: &mut Self::Ring, entry: usize) -> Result<(), Fault>;

    /// Waits until an entry is written, and for nothing that was put on the queue later; copies its first
    /// words. What is on the queue may not write it meanwhile: there are more entries than steps that were
    /// not read.
    fn ring_read(&self, ring: &mut Self::Ring, entry: usize, words: &mut [u32]) -> Result<(), Fault>;
}
