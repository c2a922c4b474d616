//! Programs made ready: compiled and loaded, as graphs where steps are short. Some are made at load, some when a step first
//! needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amoeba_kernels::cuda::{Call, Unit};

use crate::Error;
use crate::compile::Compiler;
use crate::executable::Mailbox;
use crate::program::{DECODE_ROWS_MAX, Part, Program, Stretch};
use crate::sys::{Arena, Code, Gpu, Graph, Launch, put_all};

/// What it takes to make launches. Fields that use the device come before what they use.
pub struct Tools {
    /// Loaded units; those that stamp their times are others.
    codes: BTreeMap<(bool, Unit), Code>,
    /// What launches work on.
    pub arena: Arc<Arena>,
    compiler: Compiler,
    /// Where they run.
    pub gpu: Gpu,
    notice: fn(&str),
}

/// What launches of decode steps keep of L1 as shared memory: 132 of 228 KiB on Hopper (`Site::spread` of the kernels counts on it). A multiprocessor
/// changes that only while it is idle, so launches that want different shares cannot overlap; and loads on their way need L1.
const SHARED_PERCENT: i32 = 57;

impl Tools {
    /// With nothing loaded.
    pub fn new(compiler: Compiler, (gpu, arena): (Gpu, Arc<Arena>), notice: fn(&str)) -> Tools {
        Tools { codes: BTreeMap::new(), arena, compiler, gpu, notice }
    }

    /// Compiles and loads the units of some calls, each once.
    ///
    /// # Errors
    /// A kernel does not compile, or the driver refuses it.
    fn load<'a>(&mut self, calls: impl Iterator<Item = &'a Call>, traced: bool) -> Result<(), Error> {
        let known = |unit: &&Unit| self.codes.contains_key(&(traced, (*unit).clone()));
        let units: BTreeSet<&Unit> = calls.map(|call| &call.unit).collect();
        let units: Vec<&Unit> = units.into_iter().filter(|unit| !known(unit)).collect();
        if units.is_empty() {
            return Ok(());
        }
        let codes = self.compiler.all(&units, traced, self.notice)?;
        for (unit, code) in units.into_iter().zip(codes) {
            let code = Code::load(&self.gpu, code).map_err(Error::driver("loading kernels"))?;
            self.codes.insert((traced, unit.clone()), code);
        }
        Ok(())
    }

    /// One launch, ready; it works on `arena` alone.
    ///
    /// # Errors
    /// Its kernel does not compile, or the driver refuses it.
    pub fn launch_on(&mut self, call: &Call, arena: &Arc<Arena>) -> Result<Launch, Error> {
        self.load(std::iter::once(call), false)?;
        let code = &self.codes[&(false, call.unit.clone())];
        code.launch(call, &[Arc::clone(arena)]).map_err(Error::driver(call.kernel))
    }

    /// A call whose unit is loaded; its times go to the stamp of that number.
    fn ready(&self, call: &Call, stamp: Option<(&Stamps, usize)>) -> Result<Launch, Error> {
        let code = &self.codes[&(stamp.is_some(), call.unit.clone())];
        let arena = Arc::clone(&self.arena);
        let launch = match stamp {
            None => code.launch(call, &[arena]),
            Some((stamps, number)) => {
                let call = call.stamped(stamps.address(number));
                code.launch(&call, &[arena, Arc::clone(&stamps.arena)])
            }
        };
        launch.map_err(Error::driver(call.kernel))
    }
}

/// Where launches leave their times.
pub struct Stamps {
    /// Holds nothing else.
    pub arena: Arc<Arena>,
    /// Clears them; the first launch of a step. Its own time is stamp 0.
    pub reset: Arc<[Launch]>,
    /// Numbers of the first launch of body and head.
    pub first: [usize; 2],
}

impl Stamps {
    fn address(&self, number: usize) -> u64 {
        self.arena.base() + (number * amoeba_kernels::cuda::trace::STAMP_BYTES) as u64
    }
}

/// A program with what of it is ready. Fields that use the device come before what they use.
pub struct Steps {
    /// By size of step; captured when a step first has it.
    graphs: Vec<Option<Graph>>,
    /// By [`Part`], then by size.
    ready: [Vec<Option<Arc<[Launch]>>>; 2],
    /// As lowered.
    pub program: Program,
    /// Where its launches leave their times, if they do.
    pub stamps: Option<Stamps>,
}

impl Steps {
    /// With nothing ready.
    pub fn new(program: Program, stamps: Option<Stamps>) -> Steps {
        let decode = program.sizes.iter().filter(|size| **size <= DECODE_ROWS_MAX).count();
        let none = || program.sizes.iter().map(|_| None).collect();
        Steps { graphs: (0..decode).map(|_| None).collect(), ready: [none(), none()], program, stamps }
    }

    /// Makes all of it ready, but captures nothing.
    ///
    /// # Errors
    /// A kernel does not compile, or the driver refuses it.
    pub fn make_all(&mut self, tools: &mut Tools) -> Result<(), Error> {
        let sizes = 0..self.program.sizes.len();
        self.make(tools, &sizes.flat_map(|n| [(Part::Body, n), (Part::Head, n)]).collect::<Vec<_>>())
    }

    /// Makes some stretches ready that are not.
    fn make(&mut self, tools: &mut Tools, wanted: &[(Part, usize)]) -> Result<(), Error> {
        let Steps { ready, program, stamps, .. } = self;
        if wanted.iter().all(|(part, size)| ready[*part as usize][*size].is_some()) {
            return Ok(());
        }
        let calls = wanted.iter().flat_map(|(part, size)| &program.stretch(*part, *size).calls);
        tools.load(calls, stamps.is_some())?;
        for &(part, size) in wanted {
            let of = |(n, call)| {
                let stamp = stamps.as_ref().map(|stamps| (stamps, stamps.first[part as usize] + n));
                let launch = tools.ready(call, stamp)?;
                if program.sizes[size] <= DECODE_ROWS_MAX {
                    launch.keep_shared(SHARED_PERCENT).map_err(Error::driver(call.kernel))?;
                }
                Ok(launch)
            };
            let launches = program.stretch(part, size).calls.iter().enumerate().map(of);
            ready[part as usize][size] = Some(launches.collect::<Result<Arc<[Launch]>, Error>>()?);
        }
        Ok(())
    }

    /// Stretches for a step of so many rows of which so many want logits, with what they are.
    ///
    /// # Errors
    /// As [`Steps::make_all`].
    pub fn stretches(
        &mut self,
        tools: &mut Tools,
        (rows, wanted): (usize, usize),
    ) -> Result<Vec<(Arc<[Launch]>, &Stretch)>, Error> {
        let parts = self.parts(rows, wanted);
        let parts: Vec<(Part, usize)> = parts.into_iter().flatten().collect();
        self.make(tools, &parts)?;
        let of = |(part, size): (Part, usize)| {
            let launches = self.ready[part as usize][size].as_ref().expect("made just now");
            (Arc::clone(launches), self.program.stretch(part, size))
        };
        Ok(parts.into_iter().map(of).collect())
    }

    /// What of the program a step is: sizes of body and head. A graph has a head for all its rows.
    pub fn parts(&self, rows: usize, wanted: usize) -> [Option<(Part, usize)>; 2] {
        let body = self.program.size_of(rows);
        let head = if body < self.graphs.len() { body } else { self.program.size_of(wanted) };
        let headless = wanted == 0 && body >= self.graphs.len();
        [Some((Part::Body, body)), (!headless).then_some((Part::Head, head))]
    }

    /// Puts the step that the mailbox holds, of so many rows and rows that want logits, on the stream; the number of its launches.
    ///
    /// # Errors
    /// As [`Steps::make_all`], or an earlier kernel failed.
    pub fn run(
        &mut self,
        tools: &mut Tools,
        mailbox: &mut Mailbox,
        (rows, wanted): (usize, usize),
    ) -> Result<usize, Error> {
        let failed = Error::driver("a step");
        let parts = self.parts(rows, wanted);
        let count = |(part, size): (Part, usize)| self.program.stretch(part, size).calls.len();
        let launches = parts.into_iter().flatten().map(count).sum();
        let size = self.program.size_of(rows);
        if size < self.graphs.len() {
            self.capture(tools, mailbox, size)?;
            let graph = self.graphs[size].as_mut().expect("captured just now");
            graph.go(&mut mailbox.step).map_err(failed)?;
            return Ok(launches);
        }
        let lists: Vec<Arc<[Launch]>> =
            self.stretches(tools, (rows, wanted))?.into_iter().map(|(list, _)| list).collect();
        mailbox.send(&tools.arena, rows).map_err(&failed)?;
        let reset = self.stamps.iter().flat_map(|stamps| stamps.reset.iter());
        put_all(&tools.gpu, reset.chain(lists.iter().flat_map(|list| list.iter()))).map_err(failed)?;
        Ok(launches)
    }

    /// Captures the graph of a size, if that was not done.
    ///
    /// # Errors
    /// As [`Steps::make_all`].
    pub fn capture(&mut self, tools: &mut Tools, mailbox: &mut Mailbox, size: usize) -> Result<(), Error> {
        if self.graphs[size].is_some() {
            return Ok(());
        }
        let rows = self.program.sizes[size];
        let stretches = self.stretches(tools, (rows, rows))?;
        let mut lists: Vec<Arc<[Launch]>> = stretches.into_iter().map(|(list, _)| list).collect();
        if let Some(stamps) = &self.stamps {
            lists.insert(0, Arc::clone(&stamps.reset));
        }
        let place = (Mailbox::words(rows), mailbox.step_at);
        let graph = Graph::capture(&tools.gpu, &mut mailbox.step, &tools.arena, place, lists);
        self.graphs[size] = Some(graph.map_err(Error::driver("capturing a step"))?);
        Ok(())
    }
}
