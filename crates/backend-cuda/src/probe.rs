//! Buffers of a stopped step as a probe sees them: rows are fetched when they are asked for.

use std::cell::{OnceCell, RefCell};

use amoeba_backend::Buffers;
use amoeba_kernels::cuda::Place;
use amoeba_plan::{BufferId, Plan};
use cudarc::driver::DriverError;

use crate::sys::{Arena, Pinned};

/// Rows fetched so far.
pub struct View<'a> {
    plan: &'a Plan,
    /// Offsets of the buffers.
    buffers: &'a [Place],
    arena: &'a Arena,
    /// One row of the widest buffer.
    row: RefCell<&'a mut Pinned<f32>>,
    fetched: Vec<Vec<OnceCell<Box<[f32]>>>>,
    error: RefCell<Option<DriverError>>,
}

impl<'a> View<'a> {
    /// Of the buffers as they are, with so many rows.
    pub fn new(
        plan: &'a Plan,
        buffers: &'a [Place],
        arena: &'a Arena,
        row: &'a mut Pinned<f32>,
        rows: usize,
    ) -> View<'a> {
        let fetched = buffers.iter().map(|_| (0..rows).map(|_| OnceCell::new()).collect()).collect();
        View { plan, buffers, arena, row: RefCell::new(row), fetched, error: RefCell::new(None) }
    }

    /// The first failure of a fetch, whose row was seen as NaN.
    pub fn error(self) -> Option<DriverError> {
        self.error.into_inner()
    }

    fn fetch(&self, buffer: BufferId, row: usize) -> Box<[f32]> {
        let width = self.plan.buffer(buffer).width;
        let Place { address, stride } = self.buffers[buffer.0];
        let mut pinned = self.row.borrow_mut();
        match pinned.fetch(width, self.arena, address as usize + row * stride * 4) {
            Ok(()) => pinned.get()[..width].into(),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                vec![f32::NAN; width].into()
            }
        }
    }
}

impl Buffers for View<'_> {
    fn row(&self, buffer: BufferId, row: usize) -> &[f32] {
        self.fetched[buffer.0][row].get_or_init(|| self.fetch(buffer, row))
    }
}
