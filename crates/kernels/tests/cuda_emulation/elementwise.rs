//! The elementwise ops, `copy`, `rope` and the compaction of rows.

use amoeba_kernels::elementwise::{gate_of, reference, scale_of, temperature_of};
use amoeba_kernels::gpu::StepRow;
use amoeba_kernels::testing::{ACTIVATIONS, Rng};
use amoeba_kernels::{activate, rope};
use amoeba_plan::{
    ActivateOp, AddOp, BufferId, CopyOp, GateKind, HeadGateOp, Op, Rope, RopeOp, ScaleOp, Strided,
    TemperatureOp,
};

use crate::bench::Bench;

const WIDTH: usize = 300;

/// Runs the op `of` makes of buffers x and y, three rows in steps of at most four, and gives x and the
/// inputs.
fn run(bench: &mut Bench, rng: &mut Rng, of: impl Fn(BufferId, BufferId) -> Op) -> [Vec<Vec<f32>>; 3] {
    let inputs = [0, 1].map(|_| rng.vector(3 * WIDTH).iter().map(|x| x * 9.0).collect::<Vec<f32>>());
    let [x, y] = [0, 1].map(|i| bench.buffer(WIDTH, 4, &inputs[i]));
    bench.run(of(x, y), 4);
    assert!(bench.row(x, 3).iter().all(|x| x.is_nan()), "rows past the last are left alone");
    let rows = |values: &Vec<f32>| values.chunks(WIDTH).map(<[f32]>::to_vec).collect();
    [(0..3).map(|row| bench.row(x, row)).collect(), rows(&inputs[0]), rows(&inputs[1])]
}

fn near(y: &[f32], truth: &[f32], relative: f32, absolute: f32, what: &str) {
    for (i, (y, truth)) in y.iter().zip(truth).enumerate() {
        let allowed = relative * truth.abs() + absolute;
        assert!((y - truth).abs() <= allowed, "{what}, element {i}: {y} vs {truth}");
    }
}

#[test]
fn add_and_scale() {
    let (mut rng, Some(mut bench)) = (Rng(6), Bench::new()) else { return };
    bench.plain_rows(3);
    let [after, before, y] =
        run(&mut bench, &mut rng, |x, y| Op::Add(AddOp { x, y, scale: 0.3, width: WIDTH }));
    for row in 0..3 {
        let mut truth = before[row].clone();
        reference::add(&mut truth, &y[row], 0.3);
        near(&after[row], &truth, 2e-7, 1e-6, "add");
    }
    let by = bench.vector(&[1.7]);
    for (by, softcap) in [(None, None), (Some(by), None), (Some(by), Some(5.0))] {
        let op = |x, _| Op::Scale(ScaleOp { x, scale: 0.7, by, softcap, width: WIDTH });
        let [after, before, _] = run(&mut bench, &mut rng, op);
        for (after, mut truth) in after.into_iter().zip(before) {
            reference::scale(&mut truth, scale_of(0.7, by.map(|_| &[1.7][..])), softcap);
            near(&after, &truth, 2e-7, softcap.unwrap_or(0.0) * 1e-6, "scale");
        }
    }
}

#[test]
fn gates_and_temperatures() {
    let (mut rng, Some(mut bench)) = (Rng(7), Bench::new()) else { return };
    let rows = [0, 4000, 150_000].map(|position| StepRow { position, ..StepRow::default() });
    bench.rows(&rows);
    for kind in [GateKind::Plain, GateKind::Sigmoid, GateKind::Softplus] {
        let op = |x, gate| Op::HeadGate(HeadGateOp { kind, gate, heads: 5, x, width: 60 });
        let [after, before, gates] = run(&mut bench, &mut rng, op);
        for row in 0..3 {
            let mut truth = before[row].clone();
            for (head, x) in truth.chunks_mut(60).enumerate() {
                reference::scale(x, gate_of(kind, gates[row][head]), None);
            }
            near(&after[row], &truth, 3e-7, 0.0, "head_gate");
        }
    }
    let op =
        |x, _| Op::Temperature(TemperatureOp { x, width: WIDTH, scale: 0.1, period: 4000.0, shift: 1.0 });
    let [after, before, _] = run(&mut bench, &mut rng, op);
    for row in 0..3 {
        let factor = temperature_of(rows[row].position as usize, 0.1, 4000.0, 1.0);
        let mut truth = before[row].clone();
        reference::scale(&mut truth, factor, None);
        near(&after[row], &truth, 2e-7, 0.0, "temperature");
    }
}

#[test]
fn activations() {
    let (mut rng, Some(mut bench)) = (Rng(8), Bench::new()) else { return };
    bench.plain_rows(3);
    for activation in ACTIVATIONS {
        let op = |x, y| {
            let gate = activation.gated().then_some(y);
            Op::Activate(ActivateOp { activation, gate, up: x, out: x, width: WIDTH })
        };
        let [after, up, gate] = run(&mut bench, &mut rng, op);
        for row in 0..3 {
            for (i, y) in after[row].iter().enumerate() {
                let (g, u) = (gate[row][i], up[row][i]);
                let truth = activate::reference::activate(activation, g, u);
                let allowed = 1e-6 * (1.0 + f64::from(g.abs() * u.abs() + u * u));
                assert!((f64::from(*y) - truth).abs() <= allowed, "{activation:?}({g}, {u}): {y} vs {truth}");
            }
        }
    }
}

#[test]
fn copies_move_parts_of_heads() {
    let (mut rng, Some(mut bench)) = (Rng(9), Bench::new()) else { return };
    bench.plain_rows(3);
    let op = |x, y| {
        let (from, to) =
            (Strided { buffer: y, first: 4, stride: 40 }, Strided { buffer: x, first: 1, stride: 50 });
        Op::Copy(CopyOp { x: from, out: to, heads: 5, len: 17 })
    };
    let [after, before, y] = run(&mut bench, &mut rng, op);
    for row in 0..3 {
        let mut truth = before[row].clone();
        for head in 0..5 {
            truth[1 + 50 * head..][..17].copy_from_slice(&y[row][4 + 40 * head..][..17]);
        }
        assert_eq!(after[row], truth);
    }
}

#[test]
fn rotations_hold_far_into_a_context() {
    let (mut rng, Some(mut bench)) = (Rng(10), Bench::new()) else { return };
    let positions = [3, 70_000, 262_143];
    bench.rows(&positions.map(|position| StepRow { position, ..StepRow::default() }));
    for interleaved in [false, true] {
        let frequencies = (0..10).map(|i| 1e4f64.powf(-f64::from(i) / 10.0)).collect();
        let spec = Rope { dims: 20, interleaved, frequencies, amplitude: 1.1 };
        let id = bench.rope(spec.clone());
        let op = |x, _| Op::Rope(RopeOp { rope: id, heads: 7, head_dim: 40, first: 8, x });
        let [after, before, _] = run(&mut bench, &mut rng, op);
        for row in 0..3 {
            let (mut truth, mut table) = (before[row].clone(), vec![0.0; 20]);
            rope::table(&spec, positions[row], &mut table);
            for head in truth[..280].chunks_mut(40) {
                rope::rotate(&mut head[8..], &table, interleaved);
            }
            near(&after[row], &truth, 3e-7, 3e-6, "rope");
        }
    }
}

#[test]
fn wanted_rows_move_to_the_front() {
    let Some(mut bench) = Bench::new() else { return };
    let row = |source| StepRow { source, ..StepRow::default() };
    bench.step_of(&[row(1), row(3), row(4), row(0), row(0)], 3);
    let values: Vec<f32> = (0..5 * WIDTH).map(|i| i as f32).collect();
    let x = bench.buffer(WIDTH, 5, &values);
    bench.compact(x);
    for (row, source) in [1, 3, 4, 3, 4].into_iter().enumerate() {
        assert_eq!(bench.row(x, row), values[source * WIDTH..][..WIDTH]);
    }
}
