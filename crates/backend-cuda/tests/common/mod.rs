//! Fixtures on the fake device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amoeba_backend::{Activations, KvType, Limits};
use amoeba_backend_cuda::{CudaOptions, KernelCache, Libraries};
use amoeba_checkpoint::Checkpoint;
use amoeba_plan::{PathChoice, Plan};

/// Plan and weights of a fixture.
pub fn open(fixture: &str) -> (Plan, Arc<Checkpoint>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let checkpoint = Arc::new(Checkpoint::open(&root.join(fixture)).unwrap());
    (Plan::of(&checkpoint).unwrap(), checkpoint)
}

/// How to load, with compiled kernels kept in `dir`.
pub fn options(limits: Limits, dir: PathBuf) -> CudaOptions {
    CudaOptions {
        device: 0,
        path: PathChoice::Auto,
        limits,
        kv: KvType::F32,
        activations: Activations::F32,
        kernel_cache: Some(KernelCache { dir, bytes_max: 1 << 30 }),
        libraries: Libraries::default(),
        overlap: true,
        notice: |text| panic!("{text}"),
    }
}
