//! A driver without a GPU: device memory is the host's, launches run at once, in emulation. It knows no CUDA
//! but the kernels' texts, and is what shows that nothing above a driver does.

use std::alloc::{Layout, alloc, dealloc};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use amoeba_backend::gpu::{DeviceFacts, Driver, Error, Fault, List, Plain, Purpose, Ready, Transfer};
use amoeba_backend::{DeviceKind, LoadOptions, Loaded, gpu::Gpu};
use amoeba_kernels::cuda::trace::TRACED;
use amoeba_kernels::gpu::{Call, Unit};

use crate::{common, module};

/// A model on it.
pub type OnHost = Loaded<Gpu<HostDriver>>;

/// What was done, a line for each launch and graph.
pub type Log = Arc<Mutex<Vec<String>>>;

/// Words of a ring, and of an entry.
type Tokens = (Vec<u32>, usize);

type Done = Result<(), Fault>;

/// A queue that is always empty.
#[derive(Clone, Default)]
pub struct HostDriver {
    pub log: Log,
    /// Bytes that a model may take.
    pub bytes: usize,
    /// A kernel whose launches fail.
    pub fails: Option<&'static str>,
}

/// Memory as kernels want it; NaN wherever nothing was written.
pub struct Memory(*mut u8, Layout);

// SAFETY: memory that it owns; what runs on it runs one after another.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset + bytes <= self.1.size(), "{bytes} bytes at {offset} of {}", self.1.size());
        // SAFETY: inside the allocation, as was just checked.
        unsafe { self.0.add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nothing runs.
        unsafe { dealloc(self.0, self.1) };
    }
}

/// A launch, with the memory that its arguments point into.
pub struct Launch(Call, #[allow(dead_code, reason = "kept alive")] Vec<Arc<Memory>>);

/// Elements and target of its copy, and launches.
pub struct Graph(Option<(usize, u64)>, Vec<List<HostDriver>>);

impl HostDriver {
    fn copy<T: Plain>(from: *const T, to: *mut T, count: usize) {
        // SAFETY: callers checked that both hold `count` elements; nothing else touches either meanwhile.
        unsafe { std::ptr::copy(from, to, count) };
    }

    fn run(&self, Launch(call, _): &Launch) -> Done {
        self.log.lock().unwrap().push(format!("launch {}", call.kernel));
        if self.fails == Some(call.kernel) {
            return Err(Fault("it was to fail".to_owned()));
        }
        module::launch(call, 0);
        Ok(())
    }
}

impl Driver for HostDriver {
    type Memory = Memory;
    type Host<T: Plain> = Vec<T>;
    type Launch = Launch;
    type Graph = Graph;
    type Ring = Tokens;

    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda(0)
    }

    fn names(&self) -> (String, String) {
        ("host:0".to_owned(), "emulation".to_owned())
    }

    fn arch(&self) -> &str {
        "emulated"
    }

    fn free_bytes(&self) -> Result<usize, Fault> {
        Ok(self.bytes)
    }

    fn another_queue(&self) -> Result<HostDriver, Fault> {
        Ok(self.clone())
    }

    fn wait(&self) -> Done {
        Ok(())
    }

    fn reserve(&self, bytes: usize) -> Result<Arc<Memory>, Fault> {
        let layout = Layout::from_size_align(bytes.max(1), 256).unwrap();
        // SAFETY: the layout is not empty; the bytes are written before anything reads them.
        let data = unsafe { alloc(layout) };
        assert!(!data.is_null());
        // SAFETY: just allocated.
        unsafe { data.write_bytes(0xff, layout.size()) };
        Ok(Arc::new(Memory(data, layout)))
    }

    fn address(memory: &Memory) -> u64 {
        memory.0 as u64
    }

    fn zero(&self, memory: &Memory, range: Range<usize>) -> Done {
        // SAFETY: `at` checks the range.
        unsafe { memory.at(range.start, range.len()).write_bytes(0, range.len()) };
        Ok(())
    }

    fn host<T: Plain>(&self, len: usize) -> Result<Vec<T>, Fault> {
        // SAFETY: zero bits are a value of every `Plain`.
        Ok(vec![unsafe { std::mem::zeroed() }; len])
    }

    fn fill<T: Plain>(host: &mut Vec<T>) -> Result<&mut [T], Fault> {
        Ok(host)
    }

    fn get<T: Plain>(host: &Vec<T>) -> &[T] {
        host
    }

    fn send<T: Plain>(&self, from: &mut Vec<T>, count: usize, to: &Memory, offset: usize) -> Done {
        let to = to.at(offset, count * size_of::<T>()).cast();
        HostDriver::copy(from[..count].as_ptr(), to, count);
        Ok(())
    }

    fn fetch<T: Plain>(&self, to: &mut Vec<T>, count: usize, from: &Memory, offset: usize) -> Done {
        let from = from.at(offset, count * size_of::<T>()).cast();
        HostDriver::copy(from, to[..count].as_mut_ptr(), count);
        Ok(())
    }

    fn prepare(&mut self, _calls: &[&Call], _traced: bool) -> Result<(), Error> {
        Ok(())
    }

    fn launch(&self, call: &Call, memories: &[Arc<Memory>], purpose: Purpose) -> Result<Launch, Error> {
        let mut call = call.clone();
        if purpose.traced {
            let define = ("traced", Box::leak(format!("#define {TRACED}\n").into_boxed_str()) as &str);
            let headers = [&[define], call.unit.headers].concat();
            call.unit = Unit { headers: Box::leak(headers.into_boxed_slice()), ..call.unit };
        }
        Ok(Launch(call, memories.to_vec()))
    }

    fn put<'a>(&self, launches: impl IntoIterator<Item = &'a Launch>) -> Done {
        launches.into_iter().try_for_each(|launch| self.run(launch))
    }

    fn capture(&self, copy: Option<Transfer<'_, Self>>, lists: Vec<List<Self>>) -> Result<Graph, Fault> {
        let copy = copy.map(|copy| (copy.count, copy.to.at(copy.offset, copy.count * 4) as u64));
        Ok(Graph(copy, lists))
    }

    fn replay(&self, graph: &mut Graph, from: Option<&mut Vec<u32>>) -> Done {
        let Graph(copy, lists) = graph;
        assert_eq!(copy.is_some(), from.is_some());
        let launches = lists.iter().flat_map(|list| list.iter());
        self.log.lock().unwrap().push(format!("graph {}", launches.clone().count()));
        if let (Some((count, to)), Some(from)) = (copy, from) {
            HostDriver::copy(from[..*count].as_ptr(), *to as *mut u32, *count);
        }
        self.put(launches)
    }

    fn ring(&self, entries: usize, words: usize) -> Result<Tokens, Fault> {
        Ok((vec![0; entries * words], words))
    }

    fn ring_address((ring, _): &Tokens) -> u64 {
        ring.as_ptr() as u64
    }

    fn ring_written(&self, _: &mut Tokens, _: usize) -> Done {
        Ok(())
    }

    fn ring_read(&self, (ring, words): &mut Tokens, entry: usize, to: &mut [u32]) -> Done {
        for (i, word) in to.iter_mut().enumerate() {
            // SAFETY: an element of the ring, which kernels wrote by its address.
            *word = unsafe { (&raw const ring[entry * *words + i]).read_volatile() };
        }
        Ok(())
    }
}

/// A fixture on it; `None`, and a line, if there is no compiler for the kernels.
pub fn load(fixture: &str, options: &LoadOptions) -> Option<(OnHost, Log)> {
    module::available().then(|| {
        let driver = HostDriver { bytes: 4 << 30, ..HostDriver::default() };
        let log = Arc::clone(&driver.log);
        (load_on(driver, fixture, options).unwrap(), log)
    })
}

/// A fixture on such a driver.
pub fn load_on(driver: HostDriver, fixture: &str, options: &LoadOptions) -> Result<OnHost, Error> {
    let (plan, checkpoint) = common::open(&format!("fixtures/{fixture}"));
    let facts = DeviceFacts { multiprocessors: 4, arch: 90 };
    let ready = Ready::new(&plan, &checkpoint, options, || Ok::<_, Error>((driver, facts)))?;
    let (mut last, mut whole) = (0, 0);
    let loaded = ready.load(plan, &checkpoint, options, &mut |done, total| {
        assert!(done > last && done <= total);
        (last, whole) = (done, total);
    });
    assert_eq!(last, whole, "progress ends at the whole");
    loaded
}
