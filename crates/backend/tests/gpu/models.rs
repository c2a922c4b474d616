//! Whole models on the emulated GPU, held against the reference interpreter.

use amoeba_backend::{Buffers, Executable, Flow, Limits, LoadOptions, Probe, Reference, Row};
use amoeba_plan::{Op, Plan};

use crate::{common, host};

/// Keeps every op's output.
#[derive(Default)]
struct Everything {
    rows: usize,
    outputs: Vec<Vec<Vec<f32>>>,
    plan: Option<Plan>,
}

impl Probe for Everything {
    fn wants(&self, _op: usize) -> bool {
        true
    }

    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow {
        let plan = self.plan.as_ref().unwrap();
        let output = plan.program[op].op.output();
        let rows =
            output.map_or(Vec::new(), |id| (0..self.rows).map(|row| buffers.row(id, row).to_vec()).collect());
        self.outputs.push(rows);
        Flow::Continue
    }
}

fn worst(found: &[f32], expected: &[f32]) -> f64 {
    let of = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
    found.iter().zip(expected).map(of).fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

fn rows(slot: usize, positions: std::ops::Range<usize>) -> Vec<Row> {
    positions
        .map(|position| Row { token: (7 + 13 * position as u32) % 500, slot, position, logits: true })
        .collect()
}

fn agrees(fixture: &str) {
    let limits = Limits { slots: 2, context: 32, rows: 11 };
    let Some((mut gpu, _)) = host::load(fixture, &LoadOptions::sized(limits)) else { return };
    let (plan, checkpoint) = common::open(&format!("fixtures/{fixture}"));
    let mut reference = Reference::load(plan.clone(), checkpoint, limits).unwrap();
    // Few rows, whose ops share launches unless a probe looks; many.
    for prompt in [rows(1, 0..3), rows(0, 0..11)] {
        let probe = || Everything { rows: prompt.len(), outputs: Vec::new(), plan: Some(plan.clone()) };
        let (mut ours, mut theirs) = (probe(), probe());
        gpu.step(&prompt, Some(&mut ours)).unwrap();
        reference.step(&prompt, Some(&mut theirs)).unwrap();
        for (op, (ours, theirs)) in ours.outputs.iter().zip(&theirs.outputs).enumerate() {
            if matches!(plan.program[op].op, Op::Copy(_)) {
                continue; // what it leaves alone was never written
            }
            let error = ours.iter().zip(theirs).map(|(a, b)| worst(a, b)).fold(0.0, f64::max);
            let largest = theirs.iter().flatten().fold(1.0f32, |most, x| most.max(x.abs()));
            let op = &plan.program[op].op;
            assert!(error < 2e-3 * f64::from(largest), "{fixture}: {op:?}: {error:.1e}");
        }
        let plain: Vec<Vec<f32>> = (0..prompt.len()).map(|n| gpu.logits(n).to_vec()).collect();
        gpu.step(&prompt, None).unwrap();
        let error = (0..prompt.len()).map(|n| worst(gpu.logits(n), &plain[n])).fold(0.0, f64::max);
        assert!(error < 1e-3, "{fixture}: {} rows without a probe: {error:.1e}", prompt.len());
    }
    let step = [rows(0, 11..12), rows(1, 0..1)].concat();
    for step in [&rows(1, 0..11)[..], &step, &rows(0, 12..13), &[rows(0, 13..16), rows(1, 1..5)].concat()] {
        for executable in [&mut gpu as &mut dyn Executable, &mut reference] {
            executable.step(step, None).unwrap();
        }
        let errors: Vec<f64> = (0..step.len()).map(|n| worst(gpu.logits(n), reference.logits(n))).collect();
        println!("{fixture}: {} rows: {errors:?}", step.len());
        assert!(errors.iter().all(|error| *error < 2e-3), "{fixture}: {errors:?}");
    }
}

#[test]
fn every_op_agrees_with_the_reference() {
    ["llama-q4g64", "qwen3_moe-q4g64"].into_iter().for_each(agrees);
}
