//! What a device does at best: reads of its memory, launches one by one and as a graph. Held against by
//! benchmarks.

use std::sync::Arc;
use std::time::Instant;

use amoeba_backend::KernelCache;
use amoeba_backend::gpu::{Driver, Fault, Purpose};
use amoeba_kernels::cuda::floor;
use cudarc::driver::DriverError;

use crate::load::{Opened, open};
use crate::sys::{Gpu, Graph, Launch, Pinned, told};
use crate::{Error, Libraries};

/// Bytes read at a time: many times what the caches of any device hold.
const BYTES: usize = 4 << 30;
/// Repetitions; the median counts.
const REPEATS: usize = 9;
/// Launches timed together.
const LAUNCHES: usize = 1000;
/// Barriers of a launch.
const BARRIERS: usize = 200;

/// Medians of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// The device, in words.
    pub device: String,
    /// Bytes read per second.
    pub bandwidth: f64,
    /// Size of the buffer read.
    pub bytes: usize,
    /// Seconds from launch to launch of kernels that do nothing.
    pub launch: f64,
    /// The same where they are nodes of one graph.
    pub node: f64,
    /// The same where each may begin while the one before it ends; `None` on a device that does not do that.
    pub overlapping: Option<f64>,
    /// Seconds from barrier to barrier of a grid of a block per multiprocessor.
    pub barrier: f64,
}

/// Measures a device; takes about a second and up to 4 GiB of its memory.
///
/// # Errors
/// No device that can be used, or one that fails.
pub fn measure_floor(
    index: usize,
    libraries: &Libraries,
    cache: Option<&KernelCache>,
) -> Result<Floor, Error> {
    let Opened { mut driver, name, facts } = open(index, libraries, cache, false, |_| {})?;
    let said = |error: DriverError| Fault(told(error));
    let failed = amoeba_backend::gpu::Error::driver("measuring the device");
    let bytes = BYTES.min(driver.free_bytes().map_err(&failed)? / 2) / 256 * 256;
    let blocks = facts.multiprocessors;
    // After the bytes read: the sum of them, or arrivals at barriers; then what each block counted.
    let spare = 256 + (8 * blocks as usize).next_multiple_of(256);
    let arena = driver.reserve(bytes + spare).map_err(&failed)?;
    driver.zero(&arena, 0..bytes + spare).map_err(&failed)?;
    let end = arena.base() + bytes as u64;
    let read = floor::read(arena.base(), bytes, end, blocks);
    let barriers = floor::barriers(BARRIERS, end, end + 256, blocks);
    let nothing = floor::nothing();
    driver.prepare(&[&read, &barriers, &nothing], false)?;
    let launch = |call| driver.launch(call, &[Arc::clone(&arena)], Purpose::default());
    let (read, barriers) = ([launch(&read)?], launch(&barriers)?);
    let nothings = (0..LAUNCHES).map(|_| launch(&nothing)).collect::<Result<Arc<[Launch]>, _>>()?;
    let gpu = driver.gpu.clone();
    let measure = || -> Result<Floor, DriverError> {
        let put = |launches: &[Launch]| launches.iter().try_for_each(|launch| launch.go(&gpu));
        let mut mailbox = Pinned::<u32>::zeroed(&gpu, 4)?;
        let mut node = |gpu: &Gpu| -> Result<f64, DriverError> {
            let copy = Some((&mut mailbox, 4, &*arena, bytes));
            let mut graph = Graph::capture(gpu, copy, vec![Arc::clone(&nothings)])?;
            Ok(seconds(gpu, || graph.go(Some(&mut mailbox)))? / LAUNCHES as f64)
        };
        let mut overlapping = gpu.clone();
        overlapping.overlap = gpu.info.overlaps();
        let together = || arena.zero(bytes..bytes + 256).and_then(|()| barriers.go_together(&gpu));
        let launch = seconds(&gpu, || put(&nothings))? / LAUNCHES as f64;
        Ok(Floor {
            device: name.clone(),
            bandwidth: bytes as f64 / seconds(&gpu, || put(&read))?,
            bytes,
            launch,
            node: node(&gpu)?,
            overlapping: overlapping.overlap.then(|| node(&overlapping)).transpose()?,
            barrier: (seconds(&gpu, together)? - launch).max(0.0) / BARRIERS as f64,
        })
    };
    Ok(measure().map_err(said).map_err(failed)?)
}

/// Median seconds from the first launch until all is done, after a warm-up.
fn seconds(gpu: &Gpu, mut launch: impl FnMut() -> Result<(), DriverError>) -> Result<f64, DriverError> {
    launch()?;
    gpu.wait()?;
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let start = Instant::now();
        launch()?;
        gpu.wait()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}
