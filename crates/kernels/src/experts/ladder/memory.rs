//! Weights of several layers in every form the steps read, and batches routed through them.

use std::collections::BTreeMap;

use amoeba_checkpoint::{Format, Matrix};
use amoeba_plan::Activation;

use crate::experts::{Bank, Projection};
use crate::linear::{Layout, Packed};
use crate::simd::LANES;
use crate::testing::{OwnedMatrix, Rng, views};

/// A layer of experts with SwiGLU; hidden and d_ff are multiples of the format's group and of 16.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width of x and of the output.
    pub hidden: usize,
    /// Experts of a layer.
    pub experts: usize,
    /// Experts a row is routed to.
    pub top_k: usize,
    /// Inner width of an expert.
    pub d_ff: usize,
}

impl Shape {
    /// Bytes of one expert.
    pub fn expert_bytes(&self, format: Format) -> usize {
        3 * format.matrix_bytes(self.d_ff, self.hidden)
    }
}

/// Which projection of an expert.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// `[d_ff, hidden]`.
    Gate,
    /// `[d_ff, hidden]`.
    Up,
    /// `[hidden, d_ff]`.
    Down,
}

/// All experts as a checkpoint stores them.
pub struct Tensors([Vec<OwnedMatrix>; 3]);

impl Tensors {
    /// One matrix.
    pub fn matrix(&self, which: Which, expert: usize) -> Matrix<'_> {
        self.0[which as usize][expert].view()
    }
}

/// The same weights in every form. Experts of layer l are `l · experts..(l + 1) · experts`.
pub struct Memory {
    /// Shape of a layer.
    pub shape: Shape,
    /// Stored format of all three projections.
    pub format: Format,
    /// As stored.
    pub tensors: Tensors,
    /// Packed; `down` in one slice.
    pub whole: Bank,
    /// Packed as the engine packs it.
    pub items: Bank,
}

/// Random experts that differ; more of them are copies.
const DISTINCT: usize = 6;

impl Memory {
    /// Random weights of `layers` layers.
    pub fn random(shape: Shape, format: Format, layers: usize, rng: &mut Rng) -> Memory {
        assert!(shape.hidden.is_multiple_of(LANES) && shape.d_ff.is_multiple_of(LANES), "{shape:?}");
        let total = layers * shape.experts;
        let sizes = [(shape.d_ff, shape.hidden), (shape.d_ff, shape.hidden), (shape.hidden, shape.d_ff)];
        let some = sizes.map(|(rows, cols)| OwnedMatrix::stack(format, DISTINCT.min(total), rows, cols, rng));
        let tensors = Tensors([0, 1, 2].map(|i| some[i].iter().cycle().take(total).cloned().collect()));
        let bank = |slices| Bank {
            gate: Some(pack(&some[0], total, 1)),
            up: pack(&some[1], total, 1),
            down: pack(&some[2], total, slices),
            activation: Activation::SwiGlu,
        };
        let (whole, items) = (bank(1), bank(Bank::slices_for(shape.top_k)));
        Memory { shape, format, tensors, whole, items }
    }
}

/// Packs some matrices and repeats them until there are `total`.
fn pack(some: &[OwnedMatrix], total: usize, slices: usize) -> Projection {
    let views = views(some);
    let layout = Layout::sliced(views[0].rows, views[0].cols, views[0].format, slices);
    let packed = Packed::new(layout, &views);
    let mut weights = Packed::zeroed(layout, total);
    for part in weights.data_mut().chunks_mut(packed.bytes()) {
        part.copy_from_slice(&packed.data()[..part.len()]);
    }
    Projection { weights, bias: None }
}

/// One projection of a bank.
pub(super) fn packed(bank: &Bank, which: Which) -> &Packed {
    match which {
        Which::Gate => &bank.gate.as_ref().unwrap_or(&bank.up).weights,
        Which::Up => &bank.up.weights,
        Which::Down => &bank.down.weights,
    }
}

/// An expert and the rows that go to it.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its index over all layers.
    pub expert: usize,
    /// Rows of x.
    pub rows: Vec<u32>,
    /// `row · top_k + choice` of each.
    pub choices: Vec<u32>,
}

/// Rows of x, their routes, and the same routes by expert.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[rows, hidden]`.
    pub x: Vec<f32>,
    /// Per row `[2 · top_k]`: experts in ascending order, then their weights.
    pub routes: Vec<Vec<f32>>,
    /// In ascending order of expert.
    pub groups: Vec<Group>,
}

impl Batch {
    /// Random rows, each through `top_k` random experts of a layer.
    pub fn random(shape: Shape, layer: usize, rows: usize, rng: &mut Rng) -> Batch {
        let x = rng.vector(rows * shape.hidden).iter().map(|x| x / (shape.hidden as f32).sqrt()).collect();
        let mut by_expert: BTreeMap<usize, Group> = BTreeMap::new();
        let mut routes = Vec::new();
        for row in 0..rows {
            let mut picks: Vec<usize> = (0..shape.experts).map(|e| layer * shape.experts + e).collect();
            for k in 0..shape.top_k {
                picks.swap(k, k + rng.below(shape.experts - k));
            }
            picks.truncate(shape.top_k);
            picks.sort_unstable();
            for (k, &expert) in picks.iter().enumerate() {
                let empty = Group { expert, rows: Vec::new(), choices: Vec::new() };
                let group = by_expert.entry(expert).or_insert(empty);
                group.rows.push(row as u32);
                group.choices.push((row * shape.top_k + k) as u32);
            }
            let weights = (0..shape.top_k).map(|k| 1.0 / (k + 2) as f32);
            routes.push(picks.iter().map(|&e| e as f32).chain(weights).collect());
        }
        Batch { x, routes, groups: by_expert.into_values().collect() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.routes.len()
    }
}
