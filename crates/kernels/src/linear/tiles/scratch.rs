//! Memory of the products on tiles: one per thread, kept from call to call, since zeroing it would cost a
//! small product a tenth of its time.
//!
//! A load whose address equals that of an earlier store in the lowest twelve bits waits for it (Intel's
//! optimization manual, "4-KByte aliasing"), and sums of the tile unit are stored late. So everything comes
//! in KiB of whole pages, and step i takes what lies in KiB i mod 4 while the sums of step i - 1 or i + 1 are
//! on their way to another one.

use std::cell::Cell;

use crate::linear::digits::MOST;
use crate::simd::LANES;
use crate::simd::tiles::{Sums, TILE_ROWS, Tile};

/// Tiles of rows in a pass, at most: few enough that x of a strip stays in the first-level cache, and enough
/// for the sixty to eighty rows an expert often has.
pub(super) const ROW_TILES: usize = 5;
/// Sums of a batch, in tiles of rows × blocks: 160 KiB, which fit the second-level cache together with x.
pub(super) const SLOTS: usize = 32 * ROW_TILES;
/// Tiles of codes of one block in a strip, at most.
pub(super) const CODE_TILES: usize = 8;
/// Steps whose products have places of their own.
pub(super) const STEPS: usize = 4;
/// Bytes after which addresses look alike.
const PAGE: usize = 4096;

/// Groups × tiles of rows in a strip, by digits: with the codes of two blocks about 32 KiB.
pub(super) const fn strip_slots(digits: usize, halves: usize) -> usize {
    [20, 12, 10][digits - 1] / halves
}

/// Sixteen lines of sixteen f32.
#[derive(Clone, Copy)]
#[repr(C, align(1024))]
pub(super) struct Lines(pub(super) [[f32; LANES]; TILE_ROWS]);

/// Of one group of a tile of rows: factors (what a step of the product is worth but for the scale of the
/// codes), sums of the integers, and what the offset of the codes adds to the sums of each digit (as i32
/// bits).
pub(super) type Rows = [[f32; TILE_ROWS]; 2 + MOST];

/// First line of the [`Rows`] of a slot: those of one page lie on lines of their own, for the sake of the
/// cache's sets.
#[inline(always)]
fn first_line(slot: usize) -> usize {
    slot / STEPS * 2
}

/// The line of a group's scales; biases follow.
const SCALES: usize = LANES - 2;

impl Lines {
    #[inline(always)]
    pub(super) fn rows(&self, slot: usize) -> &Rows {
        self.0[first_line(slot)..].first_chunk().expect("slots of a strip have lines")
    }

    #[inline(always)]
    pub(super) fn rows_mut(&mut self, slot: usize) -> &mut Rows {
        self.0[first_line(slot)..].first_chunk_mut().expect("slots of a strip have lines")
    }

    /// Scales and biases of one group of sixteen outputs.
    #[inline(always)]
    pub(super) fn scales(&self) -> &[[f32; LANES]; 2] {
        self.0[SCALES..].first_chunk().expect("two lines")
    }

    #[inline(always)]
    pub(super) fn scales_mut(&mut self) -> &mut [[f32; LANES]; 2] {
        self.0[SCALES..].first_chunk_mut().expect("two lines")
    }
}

/// KiB from the start of a page on.
pub(super) struct Pages<T> {
    data: Vec<T>,
    first: usize,
}

impl<T: Copy> Pages<T> {
    fn new(value: T, count: usize) -> Pages<T> {
        let data = vec![value; count + PAGE / size_of::<T>() - 1];
        let first = data.as_ptr().align_offset(PAGE);
        Pages { data, first }
    }

    #[inline(always)]
    pub(super) fn all(&self) -> &[T] {
        &self.data[self.first..]
    }

    #[inline(always)]
    pub(super) fn all_mut(&mut self) -> &mut [T] {
        &mut self.data[self.first..]
    }
}

/// Nothing in it is expected to be zero.
pub(super) struct Scratch {
    /// A strip of x: by slot, that is tile of rows and group, a tile for each half and digit.
    pub(super) digits: Pages<Tile>,
    /// [`Lines::rows`] by slot.
    pub(super) rows: Pages<Lines>,
    /// Codes of a strip of a block and of the next one.
    pub(super) codes: [Pages<Tile>; 2],
    /// Their [`Lines::scales`] by group.
    pub(super) scales: [Pages<Lines>; 2],
    /// Products of [`STEPS`] steps.
    pub(super) products: Pages<Sums>,
    /// Sums of a batch, by block and tile of rows: of all slices so far, and of the one at work.
    pub(super) sums: [Vec<Lines>; 2],
    /// One row of them.
    pub(super) row: Vec<f32>,
}

thread_local! {
    static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// That of this thread, or a new one.
    pub(super) fn take() -> Box<Scratch> {
        KEPT.take().unwrap_or_else(Scratch::new)
    }

    /// Kept for the next call.
    pub(super) fn keep(self: Box<Scratch>) {
        KEPT.set(Some(self));
    }

    #[cold]
    fn new() -> Box<Scratch> {
        let most = |slots: fn(usize) -> usize| (1..=MOST).map(slots).max().unwrap_or(0);
        let zero = Lines([[0.0; LANES]; TILE_ROWS]);
        Box::new(Scratch {
            digits: Pages::new(Tile::ZERO, most(|digits| digits * strip_slots(digits, 1))),
            rows: Pages::new(zero, most(|digits| strip_slots(digits, 1))),
            codes: [(); 2].map(|()| Pages::new(Tile::ZERO, CODE_TILES)),
            scales: [(); 2].map(|()| Pages::new(zero, CODE_TILES)),
            products: Pages::new(Sums::ZERO, STEPS * MOST),
            sums: [(); 2].map(|()| vec![zero; SLOTS]),
            row: vec![0.0; SLOTS * LANES],
        })
    }
}
