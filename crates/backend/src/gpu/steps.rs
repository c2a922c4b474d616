//! Programs made ready: launches, and graphs of them where steps are short. Some are made at load, some when
//! a step first needs them.

use std::sync::Arc;

use amoeba_kernels::cuda::trace;
use amoeba_kernels::gpu::Call;
use amoeba_plan::FEW_ROWS_MAX;

use super::Error;
use super::driver::{Driver, List, Purpose};
use super::mailbox::Mailbox;
use super::program::{Program, Section, Segment};

/// A device and the model's memory there. The memory comes first: it is freed before the device is left.
pub struct LaunchContext<D: Driver> {
    /// What launches work on.
    pub memory: Arc<D::Memory>,
    /// Where they run.
    pub driver: D,
}

impl<D: Driver> LaunchContext<D> {
    /// Launches that work on `memory` alone, ready.
    ///
    /// # Errors
    /// A kernel does not compile, or the driver refuses it.
    pub fn launches_on(&mut self, calls: &[Call], memory: &Arc<D::Memory>) -> Result<List<D>, Error> {
        self.driver.prepare(&calls.iter().collect::<Vec<_>>(), false)?;
        let memories = [Arc::clone(memory)];
        calls.iter().map(|call| self.driver.launch(call, &memories, Purpose::default())).collect()
    }
}

/// Where launches leave their times.
pub struct Stamps<D: Driver> {
    /// Holds nothing else.
    pub memory: Arc<D::Memory>,
    /// Clears them; the first launch of a step. Its own time is stamp 0.
    pub reset: List<D>,
    /// Numbers of the first launch of body and head.
    pub first: [usize; 2],
}

impl<D: Driver> Stamps<D> {
    fn address(&self, number: usize) -> u64 {
        D::address(&self.memory) + (number * trace::STAMP_BYTES) as u64
    }
}

/// A program with what of it is ready. Fields that use the device come before what they use.
pub struct Steps<D: Driver> {
    /// By size of step; captured when a step first has it.
    graphs: Vec<Option<D::Graph>>,
    /// By [`Section`], then by size.
    ready: [Vec<Option<List<D>>>; 2],
    /// As lowered.
    pub program: Program,
    /// Where its launches leave their times, if they do.
    pub stamps: Option<Stamps<D>>,
}

impl<D: Driver> Steps<D> {
    /// With nothing ready.
    pub fn new(program: Program, stamps: Option<Stamps<D>>) -> Steps<D> {
        let decode = program.sizes.iter().filter(|size| **size <= FEW_ROWS_MAX).count();
        let none = || program.sizes.iter().map(|_| None).collect();
        Steps { graphs: (0..decode).map(|_| None).collect(), ready: [none(), none()], program, stamps }
    }

    /// Makes all of it ready, but captures nothing.
    ///
    /// # Errors
    /// A kernel does not compile, or the driver refuses it.
    pub fn make_all(&mut self, on: &mut LaunchContext<D>) -> Result<(), Error> {
        let sizes = 0..self.program.sizes.len();
        self.make(on, &sizes.flat_map(|n| [(Section::Body, n), (Section::Head, n)]).collect::<Vec<_>>())
    }

    /// Makes some segments ready that are not.
    fn make(&mut self, on: &mut LaunchContext<D>, wanted: &[(Section, usize)]) -> Result<(), Error> {
        let Steps { ready, program, stamps, .. } = self;
        if wanted.iter().all(|(section, size)| ready[*section as usize][*size].is_some()) {
            return Ok(());
        }
        let calls = wanted.iter().flat_map(|(section, size)| &program.segment(*section, *size).calls);
        on.driver.prepare(&calls.collect::<Vec<_>>(), stamps.is_some())?;
        for &(section, size) in wanted {
            let decode = program.sizes[size] <= FEW_ROWS_MAX;
            let purpose = Purpose { traced: stamps.is_some(), decode };
            let of = |(n, call): (usize, &Call)| match &stamps {
                None => on.driver.launch(call, &[Arc::clone(&on.memory)], purpose),
                Some(stamps) => {
                    let call = call.stamped(stamps.address(stamps.first[section as usize] + n));
                    let memories = [Arc::clone(&on.memory), Arc::clone(&stamps.memory)];
                    on.driver.launch(&call, &memories, purpose)
                }
            };
            let launches = program.segment(section, size).calls.iter().enumerate().map(of);
            ready[section as usize][size] = Some(launches.collect::<Result<List<D>, Error>>()?);
        }
        Ok(())
    }

    /// Segments for a step of some rows, some of which want logits, with their launches.
    ///
    /// # Errors
    /// As [`Steps::make_all`].
    pub fn segments(
        &mut self,
        on: &mut LaunchContext<D>,
        (rows, wanted): (usize, usize),
    ) -> Result<Vec<(List<D>, &Segment)>, Error> {
        let sections = self.sections(rows, wanted);
        let sections: Vec<(Section, usize)> = sections.into_iter().flatten().collect();
        self.make(on, &sections)?;
        let of = |(section, size): (Section, usize)| {
            let launches = self.ready[section as usize][size].as_ref().expect("made just now");
            (Arc::clone(launches), self.program.segment(section, size))
        };
        Ok(sections.into_iter().map(of).collect())
    }

    /// Launches of those segments.
    ///
    /// # Errors
    /// As [`Steps::make_all`].
    pub fn lists(&mut self, on: &mut LaunchContext<D>, shape: (usize, usize)) -> Result<Vec<List<D>>, Error> {
        Ok(self.segments(on, shape)?.into_iter().map(|(list, _)| list).collect())
    }

    /// What of the program a step is: sizes of body and head. A graph has a head for all its rows.
    pub fn sections(&self, rows: usize, wanted: usize) -> [Option<(Section, usize)>; 2] {
        let body = self.program.size_of(rows);
        let head = if body < self.graphs.len() { body } else { self.program.size_of(wanted) };
        let headless = wanted == 0 && body >= self.graphs.len();
        [Some((Section::Body, body)), (!headless).then_some((Section::Head, head))]
    }

    /// Puts the step that the mailbox holds on the queue: rows, and those of them that want logits. Returns
    /// the number of its launches.
    ///
    /// # Errors
    /// As [`Steps::make_all`], or an earlier kernel failed.
    pub fn run(
        &mut self,
        on: &mut LaunchContext<D>,
        mailbox: &mut Mailbox<D>,
        (rows, wanted): (usize, usize),
    ) -> Result<usize, Error> {
        let failed = Error::driver("a step");
        let count = |(section, size): (Section, usize)| self.program.segment(section, size).calls.len();
        let launches = self.sections(rows, wanted).into_iter().flatten().map(count).sum();
        let size = self.program.size_of(rows);
        if size < self.graphs.len() {
            self.capture(on, mailbox, size)?;
            let graph = self.graphs[size].as_mut().expect("captured just now");
            on.driver.replay(graph, Some(mailbox.step())).map_err(failed)?;
            return Ok(launches);
        }
        let lists = self.lists(on, (rows, wanted))?;
        mailbox.send(&on.driver, &on.memory, rows).map_err(&failed)?;
        let reset = self.stamps.iter().flat_map(|stamps| stamps.reset.iter());
        on.driver.put(reset.chain(lists.iter().flat_map(|list| list.iter()))).map_err(failed)?;
        Ok(launches)
    }

    /// Captures the graph of a size, if that was not done.
    ///
    /// # Errors
    /// As [`Steps::make_all`].
    pub fn capture(
        &mut self,
        on: &mut LaunchContext<D>,
        mailbox: &mut Mailbox<D>,
        size: usize,
    ) -> Result<(), Error> {
        if self.graphs[size].is_some() {
            return Ok(());
        }
        let rows = self.program.sizes[size];
        let mut lists = self.lists(on, (rows, rows))?;
        if let Some(stamps) = &self.stamps {
            lists.insert(0, Arc::clone(&stamps.reset));
        }
        let graph = on.driver.capture(Some(mailbox.copy(&on.memory, rows)), lists);
        self.graphs[size] = Some(graph.map_err(Error::driver("capturing a step"))?);
        Ok(())
    }
}
