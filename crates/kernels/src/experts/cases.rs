//! Cases of `experts`: fused against the reference and, bit by bit, against the unfused path.

use amoeba_checkpoint::{Float, Format};
use amoeba_plan::{Activation, FEW_ROWS_MAX};

use amoeba_kernels::activate::activate;
use amoeba_kernels::experts::cpu::{Rows, Scratch};
use amoeba_kernels::experts::reference::{Experts, Stored};
use amoeba_kernels::experts::{Bank, Partials, Projection, combine, fused_item};
use amoeba_kernels::linear::cpu::Sink;
use amoeba_kernels::linear::{Arrangement, Digits, Input, Layout, Packed, matmul, prepare};
use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::{ACTIVATIONS, OwnedMatrix, Rng, formats, rms, views};

/// A layer's experts in both forms, and a batch routed through them.
struct Case {
    gate: Vec<OwnedMatrix>,
    up: Vec<OwnedMatrix>,
    down: Vec<OwnedMatrix>,
    biases: Option<[Vec<f32>; 3]>,
    activation: Activation,
    x: Vec<f32>,
    routes: Vec<Vec<f32>>,
    hidden: usize,
    digits: Digits,
}

impl Case {
    fn new(
        formats: [Format; 3],
        (experts, top_k): (usize, usize),
        (hidden, d_ff): (usize, usize),
        rows: usize,
        rng: &mut Rng,
    ) -> Case {
        let mut stack = |format, out, cols| OwnedMatrix::stack(format, experts, out, cols, rng);
        let (gate, up, down) = (
            stack(formats[0], d_ff, hidden),
            stack(formats[1], d_ff, hidden),
            stack(formats[2], hidden, d_ff),
        );
        let routes = (0..rows).map(|row| {
            let mut picks: Vec<usize> = (0..top_k).map(|k| (row * 3 + k) % experts).collect();
            picks.sort_unstable();
            picks.iter().map(|&e| e as f32).chain((0..top_k).map(|k| 1.0 / (k + 2) as f32)).collect()
        });
        let routes = routes.collect();
        let x = rng.vector(rows * hidden).iter().map(|x| x / (hidden as f32).sqrt()).collect();
        let (biases, activation, digits) = (None, Activation::SwiGlu, Digits::Three);
        Case { gate, up, down, biases, activation, x, routes, hidden, digits }
    }

    fn reference(&self) -> Vec<f32> {
        let views = [&self.gate, &self.up, &self.down].map(|stack| views(stack));
        let bias = |i: usize| self.biases.as_ref().map(|biases| &biases[i][..]);
        let stored = |i: usize| Stored { matrices: &views[i], bias: bias(i) };
        let gate = self.activation.gated().then(|| stored(0));
        let experts = Experts { gate, up: stored(1), down: stored(2), activation: self.activation };
        let mut out = vec![0.0; self.x.len()];
        for (i, route) in self.routes.iter().enumerate() {
            let span = i * self.hidden..(i + 1) * self.hidden;
            experts.sum(&self.x[span.clone()], route, &mut out[span]);
        }
        out
    }

    fn bank(&self) -> Bank {
        let top_k = self.routes[0].len() / 2;
        let bias = |i: usize| self.biases.as_ref().map(|biases| biases[i].clone());
        let project = |stack: &[OwnedMatrix], slices: usize, i: usize| {
            let views = views(stack);
            let layout = Layout::sliced(views[0].rows, views[0].cols, views[0].format, slices);
            Projection { weights: Packed::new(layout, &views), bias: bias(i) }
        };
        Bank {
            gate: self.activation.gated().then(|| project(&self.gate, 1, 0)),
            up: project(&self.up, 1, 1),
            down: project(&self.down, Bank::slices_for(top_k), 2),
            activation: self.activation,
        }
    }

    fn prepared(&self, isa: Isa, layout: &Layout) -> Vec<f32> {
        let Some(arrangement) = Arrangement::of(layout.format, self.digits) else { return Vec::new() };
        let len = arrangement.len(self.hidden);
        let mut prepared = vec![0.0; len * self.routes.len()];
        for (x, out) in self.x.chunks_exact(self.hidden).zip(prepared.chunks_exact_mut(len)) {
            prepare(isa, arrangement, x, out);
        }
        prepared
    }

    /// Gate of the numerics contract for f32 activations. Fewer digits are outside of it: each of x and of
    /// the inner activations is then off by at most half a step of its group's largest, some four times its
    /// typical value, the product of two inner factors doubles that, and the down projection adds its own.
    fn rms_allowed(&self) -> f64 {
        match self.digits {
            Digits::Three => RMS_ALLOWED,
            Digits::Two => 4.0 * 3.0 * 0.5 / 32_639.0,
            Digits::One => 4.0 * 3.0 * 0.5 / 127.0,
        }
    }

    /// Every (row, choice) alone or rows of an expert together, through the fused item or three products.
    fn fast(&self, isa: Isa, fused: bool) -> Vec<f32> {
        let bank = self.bank();
        let (n, top_k, slices) = (self.routes.len(), self.routes[0].len() / 2, bank.slices());
        let parts = if fused { slices } else { 1 };
        let mut partials = vec![0.0; n * top_k * parts * self.hidden];
        let up_layout = bank.up.weights.layout();
        let gate_layout = bank.gate.as_ref().map_or(up_layout, |gate| gate.weights.layout());
        let (for_gate, for_up) = (self.prepared(isa, gate_layout), self.prepared(isa, up_layout));
        for expert in 0..self.up.len() {
            let members: Vec<(u32, usize)> = (0..n)
                .flat_map(|row| (0..top_k).map(move |k| (row, k)))
                .filter(|&(row, k)| self.routes[row][k] as usize == expert)
                .map(|(row, k)| (row as u32, k))
                .collect();
            for members in members.chunks(FEW_ROWS_MAX) {
                let index: Vec<u32> = members.iter().map(|m| m.0).collect();
                let (x, stride, rows, index) = (&self.x[..], self.hidden, index.len(), Some(&index[..]));
                let input = |prepared, layout: &Layout| {
                    let arrangement = Arrangement::of(layout.format, self.digits);
                    let prepared_stride = arrangement.map_or(0, |a| a.len(self.hidden));
                    Input { x, stride, index, rows, prepared, prepared_stride, arrangement }
                };
                let (gate, up) = (input(&for_gate, gate_layout), input(&for_up, up_layout));
                let rows = Rows { gate, up, digits: self.digits };
                let mut store = |slice: usize, i: usize, col: usize, values: &[f32]| {
                    let (row, k) = (members[i].0 as usize, members[i].1);
                    let at = ((row * top_k + k) * parts + slice) * self.hidden;
                    let width = values.len().min(self.hidden - col);
                    partials[at + col..][..width].copy_from_slice(&values[..width]);
                };
                if fused {
                    let mut scratch = Scratch::new(bank.down.weights.layout().slice_cols);
                    for slice in 0..slices {
                        fused_item(isa, &bank, expert, slice, &rows, &mut scratch, &mut |i, col, values| {
                            store(slice, i, col, values);
                        });
                    }
                } else {
                    unfused(isa, &bank, expert, &rows, &mut |i, col, values| store(0, i, col, values));
                }
            }
        }
        let mut out = vec![0.0; n * self.hidden];
        for (row, out) in out.chunks_exact_mut(self.hidden).enumerate() {
            let width = top_k * parts * self.hidden;
            let bias = bank.down.bias.as_ref().map(|bias| (&bias[..], self.hidden));
            let values = &partials[row * width..(row + 1) * width];
            let partials = Partials { values, stride: self.hidden, slices: parts, bias };
            combine(isa, &partials, &self.routes[row], 0, out);
        }
        out
    }
}

/// Three whole products with the activation between.
fn unfused(isa: Isa, bank: &Bank, expert: usize, rows: &Rows<'_>, sink: &mut Sink<'_>) {
    let (n, d_ff) = (rows.up.rows, bank.d_ff());
    let stride = d_ff.next_multiple_of(16);
    let product = |projection: &Projection, input: &Input<'_>| {
        let mut out = vec![0.0; n * stride];
        let weights = projection.weights.expert(expert);
        matmul(isa, weights, 0..weights.layout.blocks(), 0..1, input, &mut |row, col, values| {
            out[row * stride + col..][..values.len()].copy_from_slice(values);
        });
        for row in out.chunks_exact_mut(stride) {
            if let Some(bias) = projection.bias(expert, 0, d_ff) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        out
    };
    let gate = bank.gate.as_ref().map_or_else(|| vec![0.0; n * stride], |gate| product(gate, &rows.gate));
    let mut inner = product(&bank.up, &rows.up);
    activate(isa, bank.activation, &gate, &mut inner);
    let down = bank.down.weights.expert(expert);
    let arrangement = Arrangement::of(down.layout.format, rows.digits);
    let len = arrangement.map_or(0, |arrangement| arrangement.len(d_ff));
    let mut prepared = vec![0.0; n * len];
    if let Some(arrangement) = arrangement {
        for (row, out) in prepared.chunks_exact_mut(len).enumerate() {
            prepare(isa, arrangement, &inner[row * stride..][..d_ff], out);
        }
    }
    let (x, index, prepared) = (&inner[..], None, &prepared[..]);
    let input = Input { x, stride, index, rows: n, prepared, prepared_stride: len, arrangement };
    matmul(isa, down, 0..down.layout.blocks(), 0..down.layout.slices(), &input, sink);
}

/// Gate of the numerics contract for f32 activations.
const RMS_ALLOWED: f64 = 5e-4;

fn check(case: &Case, name: &str) -> f64 {
    let truth = case.reference();
    let first = case.fast(Isa::Scalar, true);
    let error = rms(&first, &truth);
    let allowed = case.rms_allowed();
    assert!(error <= allowed, "{name}: rms {error:e}");
    for isa in Isa::available() {
        for fused in [true, false] {
            let same = case.fast(isa, fused).iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name}: fused {fused} on {isa} has other bits");
        }
    }
    error / allowed
}

#[test]
fn every_format_mixed_per_projection() {
    let (mut rng, mut worst) = (Rng(10), 0.0f64);
    let all = formats();
    for (i, &format) in all.iter().enumerate() {
        let mixed = [format, all[(i + 5) % all.len()], all[(i + 11) % all.len()]];
        let case = Case::new(mixed, (4, 2), (256, 384), 2, &mut rng);
        worst = worst.max(check(&case, &format!("{} {} {}", mixed[0], mixed[1], mixed[2])));
    }
    println!("experts: used {:.2} % of allowed", worst * 100.0);
}

#[test]
fn fewer_digits_on_request() {
    let mut rng = Rng(13);
    let q4 = Format::Affine { bits: 4, group: 64, scale: Float::BF16 };
    for digits in Digits::ALL {
        for formats in [[q4; 3], [Format::Mxfp4, q4, Format::Nvfp4]] {
            let case = Case { digits, ..Case::new(formats, (4, 2), (256, 192), 3, &mut rng) };
            println!("{digits:?}: used {:.1} % of allowed", 100.0 * check(&case, &format!("{digits:?}")));
        }
    }
}

#[test]
fn odd_shapes_and_every_row_count() {
    let mut rng = Rng(11);
    let q4 = Format::Affine { bits: 4, group: 64, scale: Float::BF16 };
    let dense = Format::Dense(Float::BF16);
    for (experts, top_k) in [(1, 1), (3, 1), (3, 3), (8, 2), (60, 4)] {
        check(&Case::new([q4; 3], (experts, top_k), (320, 192), 3, &mut rng), "q4");
        check(&Case::new([q4, q4, dense], (experts, top_k), (192, 100), 2, &mut rng), "odd inner width");
    }
    check(&Case::new([dense; 3], (3, 2), (50, 37), 9, &mut rng), "dense, nothing divides");
    for rows in 1..=8 {
        check(&Case::new([q4; 3], (4, 3), (128, 64), rows, &mut rng), "rows");
    }
}

#[test]
fn every_activation_with_and_without_biases() {
    let mut rng = Rng(12);
    let q4 = Format::Affine { bits: 4, group: 32, scale: Float::F16 };
    for activation in ACTIVATIONS {
        for with_bias in [false, true] {
            let mut case = Case::new([q4, q4, Format::Mxfp4], (4, 2), (64, 96), 2, &mut rng);
            case.activation = activation;
            case.biases = with_bias.then(|| [rng.vector(4 * 96), rng.vector(4 * 96), rng.vector(4 * 64)]);
            check(&case, &format!("{activation:?} bias {with_bias}"));
        }
    }
}
