//! Cases of the ladder: every step inside the gate of `experts`, at every number of rows and threads.

use amoeba_checkpoint::{Float, Format, Matrix};
use amoeba_plan::Activation;

use amoeba_kernels::experts::ladder::{Batch, Memory, Shape, Step, Which, drive, steps};
use amoeba_kernels::experts::reference::{Experts, Stored};
use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::{Rng, rms};

const SHAPE: Shape = Shape { hidden: 256, experts: 5, top_k: 3, d_ff: 512 };
const LAYERS: usize = 2;

/// Gate of the numerics contract for f32 activations, as for the op itself.
const RMS_ALLOWED: f64 = 5e-4;

/// All rows in f64 from the stored tensors.
fn truth(memory: &Memory, batch: &Batch) -> Vec<f32> {
    let all = LAYERS * SHAPE.experts;
    let views = [Which::Gate, Which::Up, Which::Down]
        .map(|which| (0..all).map(|e| memory.tensors.matrix(which, e)).collect::<Vec<Matrix<'_>>>());
    let stored = |i: usize| Stored { matrices: &views[i], bias: None };
    let activation = Activation::SwiGlu;
    let experts = Experts { gate: Some(stored(0)), up: stored(1), down: stored(2), activation };
    let mut out = vec![0.0; batch.x.len()];
    for (row, out) in out.chunks_exact_mut(SHAPE.hidden).enumerate() {
        experts.sum(&batch.x[row * SHAPE.hidden..][..SHAPE.hidden], &batch.routes[row], out);
    }
    out
}

/// Share of the allowed error that each step uses; none where it does not know the format.
fn used(format: Format, rows: usize, workers: usize, rng: &mut Rng) -> Vec<(&'static str, Option<f64>)> {
    let memory = Memory::random(SHAPE, format, LAYERS, rng);
    let batches: Vec<Batch> = (0..LAYERS).map(|layer| Batch::random(SHAPE, layer, rows, rng)).collect();
    let steps = steps(&memory, Isa::best(), rows, workers);
    let of = |step: &Step<'_>| {
        let version = step.version.as_deref()?;
        let mut worst = 0.0f64;
        for batch in &batches {
            assert_eq!(drive(version, &[batch, batch], workers).len(), 2);
            let out: Vec<f32> = (0..rows).flat_map(|row| version.out(row).to_vec()).collect();
            worst = worst.max(rms(&out, &truth(&memory, batch)) / RMS_ALLOWED);
        }
        assert!(worst <= 1.0, "{}: {format}, {rows} rows, {workers} workers: {worst}", step.name);
        Some(worst)
    };
    steps.iter().map(|step| (step.name, of(step))).collect()
}

#[test]
fn every_step_is_inside_the_gate() {
    let mut rng = Rng(31);
    let affine = |bits, group, scale| Format::Affine { bits, group, scale };
    let all = [affine(4, 64, Float::BF16), affine(2, 32, Float::F32), affine(8, 128, Float::F16)];
    let mut worst: Vec<(&str, f64)> = Vec::new();
    for format in all {
        for (rows, workers) in [(1, 1), (1, 3), (3, 2), (8, 2)] {
            for (i, (name, used)) in used(format, rows, workers, &mut rng).into_iter().enumerate() {
                let used = used.unwrap_or_else(|| panic!("{name} does not know {format}"));
                worst.resize(worst.len().max(i + 1), (name, 0.0));
                worst[i].1 = worst[i].1.max(used);
            }
        }
    }
    for (name, used) in worst {
        println!("{name}: used {:.2} % of allowed", used * 100.0);
    }
}

#[test]
fn other_formats_skip_the_steps_that_do_not_know_them() {
    let mut rng = Rng(32);
    let q6 = Format::Affine { bits: 6, group: 64, scale: Float::BF16 };
    for format in [q6, Format::Mxfp4, Format::Mxfp8, Format::Dense(Float::BF16)] {
        let known: Vec<bool> = used(format, 2, 2, &mut rng).iter().map(|(_, used)| used.is_some()).collect();
        assert_eq!(known, [true, false, false, true], "{format}");
    }
}
