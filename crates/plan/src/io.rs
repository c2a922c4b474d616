//! Dataflow: what an op reads and writes.

use std::ops::Range;

use crate::program::{BufferId, CacheId, WeightId, WeightShape};

/// Elements of a row of a buffer: `len` each of some heads, that of head h from `first + h · stride` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The buffer.
    pub buffer: BufferId,
    /// First element of the first head.
    pub first: usize,
    /// From one head to the next; 0 takes the same elements for all.
    pub stride: usize,
    /// Heads.
    pub heads: usize,
    /// Elements per head.
    pub len: usize,
}

impl Region {
    /// The first `len` elements.
    pub const fn start(buffer: BufferId, len: usize) -> Region {
        Region { buffer, first: 0, stride: len, heads: 1, len }
    }

    /// The elements of each head.
    pub fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.heads).map(move |head| self.first + head * self.stride).map(move |at| at..at + self.len)
    }

    /// One past the last element.
    pub fn end(self) -> usize {
        self.ranges().map(|range| range.end).max().unwrap_or(0)
    }

    /// Whether the other has all its elements.
    pub fn within(self, other: Region) -> bool {
        let covered = |one: Range<usize>| {
            let covers = |two: Range<usize>| two.start <= one.start && one.end <= two.end;
            other.ranges().any(covers)
        };
        self.buffer == other.buffer && self.ranges().all(covered)
    }

    /// Whether some element is in both.
    pub fn overlaps(self, other: Region) -> bool {
        let meets = |one: Range<usize>| other.ranges().any(|two| one.start < two.end && two.start < one.end);
        self.buffer == other.buffer && self.ranges().any(meets)
    }
}

/// A weight as an op uses it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightUse {
    /// Which.
    pub id: WeightId,
    /// The shape the op takes it for.
    pub shape: WeightShape,
    /// Share of it that one row reads.
    pub share: f64,
}

/// What an op reads and writes. What it changes in place is in both lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Io {
    /// Elements read, per row.
    pub reads: Vec<Region>,
    /// Elements written, per row; the op's result comes first.
    pub writes: Vec<Region>,
    /// Caches read.
    pub read_caches: Vec<CacheId>,
    /// Caches written.
    pub written_caches: Vec<CacheId>,
    /// Weights read.
    pub weights: Vec<WeightUse>,
}

impl Io {
    pub(crate) fn read(self, buffer: BufferId, len: usize) -> Io {
        self.read_region(Region::start(buffer, len))
    }

    pub(crate) fn write(self, buffer: BufferId, len: usize) -> Io {
        self.write_region(Region::start(buffer, len))
    }

    /// In place.
    pub(crate) fn change(self, buffer: BufferId, len: usize) -> Io {
        self.read(buffer, len).write(buffer, len)
    }

    pub(crate) fn read_region(mut self, region: Region) -> Io {
        self.reads.push(region);
        self
    }

    pub(crate) fn write_region(mut self, region: Region) -> Io {
        self.writes.push(region);
        self
    }

    pub(crate) fn read_cache(mut self, cache: CacheId) -> Io {
        self.read_caches.push(cache);
        self
    }

    pub(crate) fn write_cache(mut self, cache: CacheId) -> Io {
        self.written_caches.push(cache);
        self
    }

    /// A weight that every row reads whole.
    pub(crate) fn weight(self, id: WeightId, shape: WeightShape) -> Io {
        self.share_of(1.0, id, shape)
    }

    /// A vector, if there is one.
    pub(crate) fn vector(self, id: Option<WeightId>, len: usize) -> Io {
        match id {
            Some(id) => self.weight(id, WeightShape::Vector(len)),
            None => self,
        }
    }

    pub(crate) fn share_of(mut self, share: f64, id: WeightId, shape: WeightShape) -> Io {
        self.weights.push(WeightUse { id, shape, share });
        self
    }

    /// Whether it writes into that buffer.
    pub fn writes_to(&self, buffer: BufferId) -> bool {
        self.writes.iter().any(|region| region.buffer == buffer)
    }

    /// Whether it reads that buffer.
    pub fn reads_from(&self, buffer: BufferId) -> bool {
        self.reads.iter().any(|region| region.buffer == buffer)
    }

    /// Whether this must have run before `later` may: one writes what the other reads or writes.
    pub fn precedes(&self, later: &Io) -> bool {
        let meet = |some: &[Region], others: &[Region]| {
            some.iter().any(|one| others.iter().any(|other| one.overlaps(*other)))
        };
        let share = |some: &[CacheId], others: &[CacheId]| some.iter().any(|cache| others.contains(cache));
        meet(&self.writes, &later.reads)
            || meet(&self.reads, &later.writes)
            || meet(&self.writes, &later.writes)
            || share(&self.written_caches, &later.read_caches)
            || share(&self.read_caches, &later.written_caches)
            || share(&self.written_caches, &later.written_caches)
    }
}
