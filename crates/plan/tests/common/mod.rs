//! Plans of all fixtures.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_checkpoint::Checkpoint;
use amoeba_plan::Plan;

/// The plan of every fixture, by name.
pub fn plans() -> Vec<(String, Plan)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let models = folders.filter(|folder| folder.join("config.json").exists());
    let plan = |folder: std::path::PathBuf| {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        (name, Plan::of(&Checkpoint::open(&folder).unwrap()).unwrap())
    };
    models.map(plan).collect()
}

/// The same with other names for all buffers.
pub fn renamed(plan: &Plan) -> Plan {
    let mut renamed = plan.clone();
    for (i, buffer) in renamed.buffers.iter_mut().enumerate() {
        buffer.name = format!("b{i}").leak();
    }
    renamed
}
