//! `conv`, `delta_net`, `ssm`: several sequences at once, begun and gone on with, in steps of one and of many
//! rows.

use amoeba_kernels::gpu::StepRow;
use amoeba_kernels::testing::{self, Rng};
use amoeba_kernels::{conv, delta_net, ssm};
use amoeba_plan::{BufferId, CacheKind, ConvOp, Op, SsmOp};

use crate::bench::Bench;

/// Rows of each step: slot and first position of each stretch, and its length.
const STEPS: [&[(u32, u32, u32)]; 4] =
    [&[(0, 0, 5), (2, 0, 3)], &[(2, 3, 1), (0, 5, 1)], &[(0, 6, 7)], &[(2, 0, 2), (1, 0, 1), (0, 13, 2)]];

/// Inputs of one kind: buffer, width, values of the step.
struct Input {
    id: BufferId,
    width: usize,
    values: Vec<f32>,
}

impl Input {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }
}

/// Runs all steps of an op; `truth` gives from slot, whether it begins, and the rows of all inputs what
/// should come out.
fn walk(
    bench: &mut Bench,
    rng: &mut Rng,
    widths: &[(usize, f32)],
    out: BufferId,
    op: impl Fn(&[BufferId]) -> Op,
    mut truth: impl FnMut(usize, bool, &[&[f32]]) -> Vec<f32>,
) {
    let mut inputs: Vec<Input> = widths
        .iter()
        .map(|&(width, _)| Input { id: bench.buffer(width, 16, &[]), width, values: Vec::new() })
        .collect();
    let ids: Vec<BufferId> = inputs.iter().map(|input| input.id).collect();
    for step in STEPS {
        let rows: Vec<StepRow> = step
            .iter()
            .flat_map(|&(slot, first, len)| {
                (0..len).map(move |i| StepRow { slot, position: first + i, ..StepRow::default() })
            })
            .collect();
        bench.rows(&rows);
        for (input, (width, size)) in inputs.iter_mut().zip(widths) {
            input.values = rng.vector(rows.len() * width).iter().map(|x| x * size).collect();
            bench.write(input.id, &input.values);
        }
        bench.write(out, &[]);
        bench.run(op(&ids), rows.len() + 1);
        for (i, row) in rows.iter().enumerate() {
            let of: Vec<&[f32]> = inputs.iter().map(|input| input.row(i)).collect();
            let expected = truth(row.slot as usize, row.position == 0, &of);
            for (y, truth) in bench.row(out, i).iter().zip(expected) {
                let allowed = 3e-6 * truth.abs().max(1.0);
                assert!((y - truth).abs() <= allowed, "row {i} at {}: {y} vs {truth}", row.position);
            }
        }
    }
}

#[test]
fn convolutions() {
    for (channels, taps, silu) in [(300, 3, true), (128, 2, false), (20, 3, true)] {
        let (mut rng, Some(mut bench)) = (Rng(14), Bench::new()) else { return };
        let (weights, biases) = (rng.vector(channels * (taps + 1)), rng.vector(channels));
        let cache = bench.cache(CacheKind::Conv { channels, taps });
        let (weight, bias) = (bench.vector(&weights), silu.then(|| bench.vector(&biases)));
        let out = bench.buffer(channels, 16, &[]);
        let op =
            |ids: &[BufferId]| Op::Conv(ConvOp { cache, weight, bias, channels, taps, silu, x: ids[0], out });
        let mut kept = vec![vec![0.0; taps * channels]; 3];
        walk(&mut bench, &mut rng, &[(channels, 2.0)], out, op, |slot, begins, x| {
            if begins {
                kept[slot].fill(0.0);
            }
            let (mut out, bias) = (vec![0.0; channels], silu.then_some(&biases[..]));
            conv::reference::step(&weights, bias, silu, &mut kept[slot], x[0], &mut out);
            out
        });
    }
}

#[test]
fn delta_rules() {
    for (k_heads, v_heads, k_dim, v_dim, per_channel) in
        [(2, 4, 32, 32, false), (1, 2, 128, 64, false), (2, 2, 64, 40, true), (1, 1, 20, 12, false)]
    {
        let (mut rng, Some(mut bench)) = (Rng(15), Bench::new()) else { return };
        let decays = if per_channel { k_dim } else { 1 };
        let (a_log, dt_bias) = (rng.vector(v_heads), rng.vector(v_heads * decays));
        let cache = bench.cache(CacheKind::State { heads: v_heads, rows: v_dim, cols: k_dim });
        let (a_log_id, dt_bias_id) = (bench.vector(&a_log), bench.vector(&dt_bias));
        let out = bench.buffer(v_heads * v_dim, 16, &[]);
        // Keys and queries shorter than one, as they come normalised.
        let short = 1.0 / (k_dim as f32).sqrt();
        let widths = [
            (k_heads * k_dim, short),
            (k_heads * k_dim, short),
            (v_heads * v_dim, 3.0),
            (v_heads * decays, 4.0),
            (v_heads, 4.0),
        ];
        let op = |ids: &[BufferId]| {
            let (inputs, weights) = (ids.try_into().unwrap(), [a_log_id, dt_bias_id]);
            testing::delta_net(cache, inputs, weights, per_channel, [k_heads, v_heads, k_dim, v_dim], out)
        };
        let mut states = vec![vec![0.0; v_heads * v_dim * k_dim]; 3];
        walk(&mut bench, &mut rng, &widths, out, op, |slot, begins, x| {
            if begins {
                states[slot].fill(0.0);
            }
            let mut out = vec![0.0; v_heads * v_dim];
            let heads = states[slot].chunks_mut(v_dim * k_dim).zip(out.chunks_mut(v_dim));
            for (h, (state, out)) in heads.enumerate() {
                let key = h / (v_heads / k_heads) * k_dim;
                let token = delta_net::Token {
                    q: &x[0][key..][..k_dim],
                    k: &x[1][key..][..k_dim],
                    v: &x[2][h * v_dim..][..v_dim],
                    decay: &x[3][h * decays..][..decays],
                    beta: x[4][h],
                };
                delta_net::reference::step(a_log[h], &dt_bias[h * decays..][..decays], &token, state, out);
            }
            out
        });
    }
}

#[test]
fn state_spaces() {
    for (heads, head_dim, groups, state, per_state) in
        [(4, 16, 2, 64, false), (48, 1, 1, 16, true), (3, 10, 1, 20, false), (2, 8, 2, 128, false)]
    {
        let (mut rng, Some(mut bench)) = (Rng(16), Bench::new()) else { return };
        let rates = if per_state { state } else { 1 };
        let [a_log, d, dt_bias] = [heads * rates, heads, heads].map(|n| rng.vector(n));
        let cache = bench.cache(CacheKind::State { heads, rows: head_dim, cols: state });
        let [a_log_id, d_id, dt_bias_id] = [&a_log, &d, &dt_bias].map(|values| bench.vector(values));
        let out = bench.buffer(heads * head_dim, 16, &[]);
        let dt_limit = (0.05, 2.0);
        let widths = [(heads * head_dim, 2.0), (groups * state, 0.3), (groups * state, 0.3), (heads, 3.0)];
        let op = |ids: &[BufferId]| {
            let (weights, sizes) = ([a_log_id, d_id], [heads, head_dim, groups, state]);
            let plain = testing::ssm(cache, ids.try_into().unwrap(), weights, sizes, out);
            Op::Ssm(SsmOp { per_state, dt_bias: Some(dt_bias_id), dt_limit, ..plain })
        };
        let mut states = vec![vec![0.0; heads * head_dim * state]; 3];
        walk(&mut bench, &mut rng, &widths, out, op, |slot, begins, x| {
            if begins {
                states[slot].fill(0.0);
            }
            let mut out = vec![0.0; heads * head_dim];
            let of = states[slot].chunks_mut(head_dim * state).zip(out.chunks_mut(head_dim));
            for (h, (kept, out)) in of.enumerate() {
                let group = h / (heads / groups) * state;
                let head = ssm::reference::Head {
                    a_log: &a_log[h * rates..][..rates],
                    d: d[h],
                    dt_bias: dt_bias[h],
                    dt_limit,
                };
                let token = ssm::Token {
                    x: &x[0][h * head_dim..][..head_dim],
                    b: &x[1][group..][..state],
                    c: &x[2][group..][..state],
                    dt: &x[3][h..=h],
                };
                ssm::reference::step(&head, &token, kept, out);
            }
            out
        });
    }
}
