//! The unfused order of work: six phases with a barrier after each (prepare x, gate, up, activation, down,
//! weighted sum). Steps 0 to 3 are this with another [`Product`].

use std::ops::Range;

use amoeba_plan::Activation;

use super::cpu::Shared;
use super::{Batch, Shape, Version, Which};
use crate::activate::activate;
use crate::experts::{Partials, combine};
use crate::linear::cpu::Sink;
use crate::simd::{Isa, LANES};

/// Some prepared rows of x.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// All of them, `stride` apart.
    pub values: &'a [f32],
    /// f32 from one to the next.
    pub stride: usize,
    /// Those that take part.
    pub index: &'a [u32],
}

impl<'a> Rows<'a> {
    /// Row `i` of those that take part.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[self.index[i] as usize * self.stride..][..self.stride]
    }
}

/// What a step does its own way: a product of one expert's matrix with rows of x.
pub trait Product: Sync {
    /// f32 slots of a prepared row of `cols` columns.
    fn len(&self, cols: usize) -> usize {
        cols
    }

    /// What is done once to every row of x; `out` has [`Product::len`] slots.
    fn prepare(&self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
    }

    /// Outputs `16 · blocks.start..16 · blocks.end` for all rows, sixteen or more at a time.
    fn product(&self, which: Which, expert: usize, blocks: Range<usize>, x: &Rows<'_>, sink: &mut Sink<'_>);
}

/// An unfused step.
pub struct Unfused<P> {
    isa: Isa,
    product: P,
    shape: Shape,
    x: Shared,
    gate: Shared,
    inner: Shared,
    prepared: Shared,
    partials: Shared,
    out: Shared,
}

/// Pieces a product is cut into.
const PIECES: usize = 4;
/// Columns of one item of the weighted sum.
pub(super) const COLUMNS: usize = 512;

/// An unfused step with room for `rows` rows, if its product knows the format.
pub(super) fn step<'a, P: Product + 'a>(
    isa: Isa,
    product: Option<P>,
    shape: Shape,
    rows: usize,
) -> Option<Box<dyn Version + 'a>> {
    let product = product?;
    let choices = rows * shape.top_k;
    Some(Box::new(Unfused {
        isa,
        x: Shared::zeroed(rows, product.len(shape.hidden)),
        gate: Shared::zeroed(choices, shape.d_ff),
        inner: Shared::zeroed(choices, shape.d_ff),
        prepared: Shared::zeroed(choices, product.len(shape.d_ff)),
        partials: Shared::zeroed(choices, shape.hidden),
        out: Shared::zeroed(rows, shape.hidden),
        product,
        shape,
    }))
}

impl<P: Product> Unfused<P> {
    /// One piece of one product for the rows of a group.
    fn multiply(&self, batch: &Batch, which: Which, item: usize) {
        let (group, piece) = (&batch.groups[item / PIECES], item % PIECES);
        let (from, index, to, outputs) = match which {
            Which::Gate => (&self.x, &group.rows, &self.gate, self.shape.d_ff),
            Which::Up => (&self.x, &group.rows, &self.inner, self.shape.d_ff),
            Which::Down => (&self.prepared, &group.choices, &self.partials, self.shape.hidden),
        };
        let blocks = outputs / LANES;
        let blocks = blocks * piece / PIECES..blocks * (piece + 1) / PIECES;
        let rows = Rows { values: from.all(), stride: from.width, index };
        self.product.product(which, group.expert, blocks, &rows, &mut |i, col, values| {
            to.part_mut(group.choices[i] as usize, col, values.len()).copy_from_slice(values);
        });
    }

    fn activate(&self, choice: usize) {
        let (width, inner) = (self.shape.d_ff, self.inner.part_mut(choice, 0, self.shape.d_ff));
        activate(self.isa, Activation::SwiGlu, self.gate.row(choice), inner);
        self.product.prepare(&inner[..width], self.prepared.part_mut(choice, 0, self.prepared.width));
    }
}

impl<P: Product> Version for Unfused<P> {
    fn phases(&self) -> usize {
        6
    }

    fn items(&self, batch: &Batch, phase: usize) -> usize {
        match phase {
            0 => batch.rows(),
            3 => batch.rows() * self.shape.top_k,
            5 => batch.rows() * self.shape.hidden.div_ceil(COLUMNS),
            _ => batch.groups.len() * PIECES,
        }
    }

    fn run(&self, batch: &Batch, phase: usize, item: usize, _worker: usize) {
        let hidden = self.shape.hidden;
        match phase {
            0 => self
                .product
                .prepare(&batch.x[item * hidden..][..hidden], self.x.part_mut(item, 0, self.x.width)),
            1 => self.multiply(batch, Which::Gate, item),
            2 => self.multiply(batch, Which::Up, item),
            3 => self.activate(item),
            4 => self.multiply(batch, Which::Down, item),
            _ => weighted_sum(self.isa, &self.partials, 1, batch, item, &self.out),
        }
    }

    fn out(&self, row: usize) -> &[f32] {
        self.out.row(row)
    }
}

/// Some columns of one row's weighted sum over `slices` partial outputs of each choice.
pub(super) fn weighted_sum(
    isa: Isa,
    partials: &Shared,
    slices: usize,
    batch: &Batch,
    item: usize,
    out: &Shared,
) {
    let parts = out.width.div_ceil(COLUMNS);
    let (row, first) = (item / parts, item % parts * COLUMNS);
    let route = &batch.routes[row];
    let values = &partials.all()[row * route.len() / 2 * slices * partials.width..];
    let partials = Partials { values, stride: partials.width, slices, bias: None };
    let width = COLUMNS.min(out.width - first);
    combine(isa, &partials, route, first, out.part_mut(row, first, width));
}
