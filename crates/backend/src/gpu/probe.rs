//! Buffers of a stopped step as a probe sees them: rows are fetched when they are asked for.

use std::cell::{OnceCell, RefCell};

use amoeba_kernels::gpu::Place;
use amoeba_plan::{BufferId, Plan};

use super::driver::{Driver, Fault};
use super::steps::LaunchContext;
use crate::Buffers;

/// Rows fetched so far.
pub struct View<'a, D: Driver> {
    plan: &'a Plan,
    /// Offsets of the buffers.
    buffers: &'a [Place],
    on: &'a LaunchContext<D>,
    /// One row of the widest buffer.
    row: RefCell<&'a mut D::Host<f32>>,
    fetched: Vec<Vec<OnceCell<Box<[f32]>>>>,
    error: RefCell<Option<Fault>>,
}

impl<'a, D: Driver> View<'a, D> {
    /// Of `rows` rows of the buffers as they are.
    pub fn new(
        plan: &'a Plan,
        buffers: &'a [Place],
        on: &'a LaunchContext<D>,
        row: &'a mut D::Host<f32>,
        rows: usize,
    ) -> View<'a, D> {
        let fetched = buffers.iter().map(|_| (0..rows).map(|_| OnceCell::new()).collect()).collect();
        View { plan, buffers, on, row: RefCell::new(row), fetched, error: RefCell::new(None) }
    }

    /// The first failure of a fetch, whose row was seen as NaN.
    pub fn error(self) -> Option<Fault> {
        self.error.into_inner()
    }

    fn fetch(&self, buffer: BufferId, row: usize) -> Box<[f32]> {
        let width = self.plan.buffer(buffer).width;
        let Place { address, stride } = self.buffers[buffer.0];
        let mut host = self.row.borrow_mut();
        let offset = address as usize + row * stride * 4;
        match self.on.driver.fetch(&mut host, width, &self.on.memory, offset) {
            Ok(()) => D::get(&host)[..width].into(),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                vec![f32::NAN; width].into()
            }
        }
    }
}

impl<D: Driver> Buffers for View<'_, D> {
    fn row(&self, buffer: BufferId, row: usize) -> &[f32] {
        self.fetched[buffer.0][row].get_or_init(|| self.fetch(buffer, row))
    }
}
