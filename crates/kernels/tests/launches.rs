//! Launch lists: a group at a time over the plans of all fixtures, whatever buffers are called.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::gpu::{self, Matrix, Place, Places, Setting, Staged, WeightPlace};
use amoeba_plan::{PathChoice, Plan, WeightShape, groups};

/// Everything at an address of its own that nobody reads.
fn places(plan: &Plan, checkpoint: &Checkpoint, fused: bool) -> Places {
    let mut next = 0;
    let mut take = || {
        next += 256;
        next
    };
    let stored = plan.stored(checkpoint).unwrap();
    let weights = plan.weights.iter().zip(stored).map(|(weight, stored)| match weight.shape {
        WeightShape::Vector(_) => WeightPlace::Vector(take()),
        WeightShape::Matrix(rows, cols) | WeightShape::Stack(_, rows, cols) => {
            let [codes, scales, biases] = [take(), take(), take()];
            WeightPlace::Matrix(Matrix { codes, scales, biases, format: stored.format, rows, cols })
        }
    });
    let weights = weights.collect();
    let buffers = plan.buffers.iter().map(|buffer| Place { address: take(), stride: buffer.width });
    Places {
        buffers: buffers.collect(),
        weights,
        step: take(),
        caches: plan.caches.iter().map(|_| take()).collect(),
        ropes: plan.ropes.iter().map(|_| take()).collect(),
        scratch: take(),
        zeroed: take(),
        setting: Setting {
            slots: 1,
            context: 256,
            kv_f16: false,
            multiprocessors: 132,
            arch: 90,
            fused,
            x_terms: 2,
        },
    }
}

/// Launches, group by group.
fn launches(plan: &Plan, at: &Places, rows: usize) -> Vec<Vec<Staged>> {
    let found = groups(plan, &gpu::capabilities(at.setting.fused), rows, PathChoice::Auto);
    let lowered = found.iter().map(|group| {
        let lowered = gpu::lower(plan, group, at, rows).unwrap();
        for staged in &lowered {
            assert!(group.stages.iter().any(|known| known.stage == staged.stage), "{group:?}: {staged:?}");
        }
        lowered
    });
    lowered.collect()
}

#[test]
fn every_fixture_is_lowered_the_same_whatever_buffers_are_called() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    for folder in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        if !folder.join("config.json").exists() {
            continue;
        }
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let plan = Plan::of(&checkpoint).unwrap();
        let mut renamed = plan.clone();
        renamed.buffers.iter_mut().for_each(|buffer| buffer.name = "b");
        for fused in [true, false] {
            let at = places(&plan, &checkpoint, fused);
            for rows in [1, 2, 9] {
                let same = launches(&plan, &at, rows) == launches(&renamed, &at, rows);
                assert!(same, "{}", folder.display());
            }
        }
    }
}
