//! Fixtures on the fake device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amoeba_backend::{Device, KernelCache, Limits, LoadOptions, PackProgress};
use amoeba_backend_cuda::{Cuda, Error, ready};
use amoeba_checkpoint::Checkpoint;
use amoeba_plan::Plan;

/// Plan and weights of a fixture.
pub fn open(fixture: &str) -> (Plan, Arc<Checkpoint>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let checkpoint = Arc::new(Checkpoint::open(&root.join(fixture)).unwrap());
    (Plan::of(&checkpoint).unwrap(), checkpoint)
}

/// How to load, with compiled kernels kept in `dir`.
pub fn options(limits: Limits, dir: PathBuf) -> LoadOptions {
    LoadOptions {
        device: Device::Cuda(0),
        kernel_cache: Some(KernelCache { dir, bytes_max: 1 << 30 }),
        libraries: Some(Vec::new()),
        overlap: Some(true),
        notice: |text| panic!("{text}"),
        ..LoadOptions::sized(limits)
    }
}

/// A fixture, loaded.
pub fn load(fixture: &str, options: &LoadOptions, progress: PackProgress<'_>) -> Result<Cuda, Error> {
    let (plan, checkpoint) = open(fixture);
    Ok(ready(&plan, &checkpoint, options)?.load(plan, &checkpoint, options, progress)?)
}
