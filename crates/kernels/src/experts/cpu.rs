//! `experts` on packed weights: the fused item, and what it shares with the unfused path.

use amoeba_plan::{Activation, FEW_ROWS_MAX};

use crate::activate::activate;
use crate::linear::cpu::Sink;
use crate::linear::{Arrangement, Digits, Input, Layout, Packed, matmul, prepare};
use crate::simd::{Isa, LANES, Simd, dispatch, load_at, update};

/// One projection of all experts.
#[derive(Debug)]
pub struct Projection {
    /// Packed, one matrix per expert.
    pub weights: Packed,
    /// `[experts, out]`.
    pub bias: Option<Vec<f32>>,
}

impl Projection {
    /// Bias of `rows` outputs of an expert from `first`, if there is one.
    pub fn bias(&self, expert: usize, first: usize, rows: usize) -> Option<&[f32]> {
        let out = self.weights.layout().rows;
        self.bias.as_ref().map(|bias| &bias[expert * out + first..][..rows])
    }
}

/// The experts of one layer, ready for the fused item.
#[derive(Debug)]
pub struct Bank {
    /// Gate projections `[d_ff, hidden]`, if the activation has them.
    pub gate: Option<Projection>,
    /// Up projections `[d_ff, hidden]`.
    pub up: Projection,
    /// Down projections `[hidden, d_ff]`, cut into the slices of [`Bank::slices`].
    pub down: Projection,
    /// Activation.
    pub activation: Activation,
}

/// Independent pieces of work a layer's experts are cut into, at least, where shapes allow.
pub const ITEMS_MIN: usize = 16;

impl Bank {
    /// How many slices `d_ff` is cut into when `top_k` experts run: fixed by shape, never by thread count.
    pub fn slices_for(top_k: usize) -> usize {
        ITEMS_MIN.div_ceil(top_k)
    }

    /// Slices of the inner width.
    pub fn slices(&self) -> usize {
        self.down.weights.layout().slices()
    }

    /// Inner width of one expert.
    pub fn d_ff(&self) -> usize {
        self.up.weights.layout().rows
    }
}

/// Scratch of [`fused_item`], one per worker, sized once.
#[derive(Clone, Debug)]
pub struct Scratch {
    gate: Vec<f32>,
    inner: Vec<f32>,
    prepared: Vec<f32>,
    stride: usize,
}

impl Scratch {
    /// Room for slices of up to `slice_cols` columns and [`FEW_ROWS_MAX`] rows.
    pub fn new(slice_cols: usize) -> Scratch {
        let stride = slice_cols.next_multiple_of(LANES);
        let room = || vec![0.0; stride * FEW_ROWS_MAX];
        // Digits and headers of a group take less than twice its columns.
        let prepared = vec![0.0; 2 * stride * FEW_ROWS_MAX];
        Scratch { gate: room(), inner: room(), prepared, stride }
    }
}

/// Inputs of [`fused_item`]: the same rows of x prepared as each projection needs them.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// For the gate projection.
    pub gate: Input<'a>,
    /// For the up projection.
    pub up: Input<'a>,
    /// Of the inner activations, for the down projection.
    pub digits: Digits,
}

/// One expert × one slice for up to [`FEW_ROWS_MAX`] rows: gate, up, activation and this slice's share of
/// down.
///
/// `sink(row, col, values)` receives the unweighted partial output, sixteen columns at a time.
pub fn fused_item(
    isa: Isa,
    bank: &Bank,
    expert: usize,
    slice: usize,
    rows: &Rows<'_>,
    scratch: &mut Scratch,
    sink: &mut Sink<'_>,
) {
    let down = bank.down.weights.expert(expert);
    let (first, cols) = down.layout.slice(slice);
    inner(isa, bank, expert, (first, cols), rows, scratch);
    let (n, stride) = (rows.up.rows, scratch.stride);
    let (arrangement, prepared_stride) = (Arrangement::of(down.layout.format, rows.digits), 2 * stride);
    if let Some(arrangement) = arrangement {
        for row in 0..n {
            let out = &mut scratch.prepared[row * prepared_stride..][..arrangement.len(cols)];
            prepare(isa, arrangement, &scratch.inner[row * stride..][..cols], out);
        }
    }
    let slice_view = Layout { cols, slice_cols: cols, ..*down.layout };
    let range = down.layout.range(slice, 0).start..down.layout.range(slice, down.layout.blocks() - 1).end;
    let weights = crate::linear::Weights { layout: &slice_view, bytes: &down.bytes[range] };
    let input = Input {
        x: &scratch.inner,
        stride,
        index: None,
        rows: n,
        prepared: &scratch.prepared,
        prepared_stride,
        arrangement,
    };
    matmul(isa, weights, 0..slice_view.blocks(), 0..1, &input, sink);
}

/// `act(gate·x, up·x)` for rows `first..first + cols` of the inner width, into `scratch.inner [n, stride]`.
fn inner(
    isa: Isa,
    bank: &Bank,
    expert: usize,
    (first, cols): (usize, usize),
    rows: &Rows<'_>,
    scratch: &mut Scratch,
) {
    let blocks = first / LANES..(first + cols).div_ceil(LANES);
    let stride = scratch.stride;
    let project = |projection: &Projection, input: &Input<'_>, out: &mut [f32]| {
        let weights = projection.weights.expert(expert);
        matmul(isa, weights, blocks.clone(), 0..1, input, &mut |row, col, values| {
            out[row * stride + col - first..][..values.len()].copy_from_slice(values);
        });
        if let Some(bias) = projection.bias(expert, first, cols) {
            for row in 0..input.rows {
                out[row * stride..][..cols].iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    };
    if let Some(gate) = &bank.gate {
        project(gate, &rows.gate, &mut scratch.gate);
    }
    project(&bank.up, &rows.up, &mut scratch.inner);
    for row in 0..rows.up.rows {
        let span = row * stride..row * stride + cols;
        activate(isa, bank.activation, &scratch.gate[span.clone()], &mut scratch.inner[span]);
    }
}

/// Expert outputs of one row, before the weighted sum.
#[derive(Clone, Copy, Debug)]
pub struct Partials<'a> {
    /// Per chosen expert (in route order) and slice, `stride` values.
    pub values: &'a [f32],
    /// f32 from one slice to the next.
    pub stride: usize,
    /// Slices per expert.
    pub slices: usize,
    /// Bias of `down`, `[experts, hidden]`, and hidden.
    pub bias: Option<(&'a [f32], usize)>,
}

dispatch! {
    /// `out ← Σ_k w_k · (Σ_slices partial + bias_k)` for the columns `first..first + out.len()` of one row.
    pub fn combine(partials: &Partials<'_>, route: &[f32], first: usize, out: &mut [f32]) = combine_with
}

#[inline(always)]
fn combine_with<S: Simd>(simd: S, partials: &Partials<'_>, route: &[f32], first: usize, out: &mut [f32]) {
    let (indices, weights) = route.split_at(route.len() / 2);
    update(
        simd,
        out,
        #[inline(always)]
        |_, at| {
            let mut total = simd.splat(0.0);
            for (k, (&index, &weight)) in indices.iter().zip(weights).enumerate() {
                let mut part = simd.splat(0.0);
                for slice in 0..partials.slices {
                    let row = &partials.values[(k * partials.slices + slice) * partials.stride..]
                        [..partials.stride];
                    part = simd.add(part, load_at(simd, row, first + at));
                }
                if let Some((bias, hidden)) = partials.bias {
                    part =
                        simd.add(part, load_at(simd, &bias[index as usize * hidden..][..hidden], first + at));
                }
                total = simd.fma(simd.splat(weight), part, total);
            }
            total
        },
    );
}
