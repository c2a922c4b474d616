//! Records decode tokens of a warm model.

use std::path::Path;
use std::time::{Duration, Instant};

use amoeba_backend::{Error as BackendError, Executable, Recording, Row};
use amoeba_engine::{LoadOptions, load_executable, open};

use super::ops::traced_ops;
use super::{Subject, Token, Trace};
use crate::Error;
use crate::bench::{BenchModel, Build, Host};

/// Tokens decoded before the first that counts.
const WARM_UP: usize = 16;
/// Tokens captured in a row; then the machine rests, so that a capture of many tells more than one moment of
/// it.
const BURST: usize = 8;
/// How long it rests.
const REST: Duration = Duration::from_millis(20);
/// Tokens decoded off the record after a rest: workers fell asleep.
const WAKE: usize = 4;
/// Spans reserved per worker at first; a step with more says how many it needs.
const SPANS: usize = 1 << 12;

/// What to capture.
#[derive(Clone, Debug, Default)]
pub struct CaptureOptions {
    /// What to call the model.
    pub name: String,
    /// Device, threads and path; context and sequences follow from the rest.
    pub load: LoadOptions,
    /// Positions cached before the first captured token; 0 counts as 1.
    pub depth: usize,
    /// Tokens to capture, one after the other; many with short rests, which are left out of the times.
    pub tokens: usize,
    /// Goes into the trace.
    pub build: Build,
    /// Goes into the trace.
    pub host: Host,
}

impl CaptureOptions {
    /// Positions cached before the first captured token.
    pub fn cached(&self) -> usize {
        self.depth.max(1)
    }

    /// What to load the model with.
    pub fn load(&self) -> LoadOptions {
        let context = Some(self.cached() + self.tokens.max(WARM_UP));
        LoadOptions { context, slots: 1, ..self.load.clone() }
    }
}

/// Loads a model as [`capture_on`] needs it.
///
/// # Errors
/// The model cannot be loaded.
pub fn load(dir: &Path, options: &CaptureOptions) -> Result<(Box<dyn Executable>, BenchModel), Error> {
    let checkpoint = open(dir)?;
    let executable = load_executable(&checkpoint, &options.load(), &mut |_, _| {})?;
    let model = BenchModel::new(&options.name, &checkpoint, executable.plan())?;
    Ok((executable, model))
}

/// Loads a model and captures tokens of it. Nothing but this should run meanwhile.
///
/// # Errors
/// The model cannot be loaded, the device cannot record, or a step fails.
pub fn capture(dir: &Path, options: &CaptureOptions) -> Result<Trace, Error> {
    let (mut executable, model) = load(dir, options)?;
    capture_on(&mut *executable, &model, options)
}

/// Captures tokens of a model that [`load`] loaded, or anyone with [`CaptureOptions::load`]. Recording is off
/// afterwards.
///
/// # Errors
/// The device cannot record, the context is too short, or a step fails.
pub fn capture_on(
    executable: &mut dyn Executable,
    model: &BenchModel,
    options: &CaptureOptions,
) -> Result<Trace, Error> {
    executable.record(SPANS)?;
    executable.record(0)?;
    let mut decoder = Decoder { executable, first: options.cached(), next: 0 };
    decoder.warm_up()?;
    decoder.reserve()?;
    let (first, started, mut rested) = (decoder.first, Instant::now(), Duration::ZERO);
    let mut tokens = Vec::with_capacity(options.tokens);
    for position in first..first + options.tokens {
        if position > first && (position - first) % BURST == 0 {
            rested += decoder.rest(position)?;
        }
        rested += decoder.seek(position)?;
        let at = (started.elapsed() - rested).as_nanos() as u64;
        let (recording, phases) = decoder.recorded(position)?;
        tokens.push(Token { position, at, phases, recording });
    }
    executable.record(0)?;
    let workers = tokens.first().map_or(0, |token: &Token| token.recording.lanes.len());
    let subject = subject(executable, model, options, workers);
    Ok(Trace { subject, ops: traced_ops(model, options.load.kv), tokens })
}

fn subject(
    executable: &dyn Executable,
    model: &BenchModel,
    options: &CaptureOptions,
    workers: usize,
) -> Subject {
    let path = executable.path(1);
    Subject {
        model: model.name.clone(),
        model_hash: model.hash.clone(),
        device_kind: executable.kind(),
        device: executable.device(),
        device_detail: executable.describe(),
        workers,
        path: path.kind.to_string(),
        path_reason: path.to_string(),
        kv: options.load.kv.to_string(),
        activations: options.load.activations.to_string(),
        depth: options.cached(),
        tokens: options.tokens,
        build: options.build.clone(),
        host: options.host.clone(),
    }
}

/// Decodes tokens of one sequence; positions may be decoded again after a [seek](Decoder::seek).
pub(super) struct Decoder<'a> {
    pub executable: &'a mut dyn Executable,
    /// Positions cached by [`Decoder::warm_up`].
    pub first: usize,
    /// Position after the last one decoded.
    pub next: usize,
}

impl Decoder<'_> {
    fn row(&self, position: usize, logits: bool) -> Row {
        // Spread over the vocabulary and, through the router, over the experts.
        let vocab = self.executable.plan().spec.vocab as u32;
        let token = (position as u32).wrapping_mul(2_654_435_761) % vocab;
        Row { token, slot: 0, position, logits }
    }

    /// Fills the cache and decodes some tokens.
    pub fn warm_up(&mut self) -> Result<(), Error> {
        self.fill(self.first)?;
        (self.first..self.first + WARM_UP).try_for_each(|position| self.decode(position))
    }

    /// Runs all positions before this one.
    fn fill(&mut self, to: usize) -> Result<(), Error> {
        let chunk = self.executable.limits().rows;
        for start in (0..to).step_by(chunk) {
            let end = to.min(start + chunk);
            let rows: Vec<Row> =
                (start..end).map(|position| self.row(position, position + 1 == end)).collect();
            self.executable.step(&rows, None)?;
        }
        self.next = to;
        Ok(())
    }

    /// Makes this position the next one: a recurrence cannot go back, and reads all before it again. The time
    /// it took.
    pub fn seek(&mut self, position: usize) -> Result<Duration, Error> {
        let started = Instant::now();
        if self.executable.plan().recurrent() && self.next != position {
            self.fill(position)?;
        }
        Ok(started.elapsed())
    }

    /// One token.
    pub fn decode(&mut self, position: usize) -> Result<(), Error> {
        self.executable.step(&[self.row(position, true)], None)?;
        self.next = position + 1;
        Ok(())
    }

    /// Lets some time pass, and wakes the workers up; the time it took.
    fn rest(&mut self, position: usize) -> Result<Duration, Error> {
        let started = Instant::now();
        std::thread::sleep(REST);
        for _ in 0..WAKE {
            self.seek(position)?;
            self.decode(position)?;
        }
        Ok(started.elapsed())
    }

    /// Reserves room so that any worker could do all of a token alone, and has the room written once.
    pub fn reserve(&mut self) -> Result<(), Error> {
        let mut room = SPANS;
        loop {
            self.executable.record(room)?;
            self.seek(self.first)?;
            self.decode(self.first)?;
            match self.executable.recorded() {
                Ok(recording) => {
                    let all: usize = recording.lanes.iter().map(Vec::len).sum();
                    if 2 * all <= room {
                        return Ok(());
                    }
                    room = 2 * all;
                }
                Err(BackendError::RecordingFull { needed, .. }) => room = 2 * needed,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One token: what was done, and in how many phases.
    fn recorded(&mut self, position: usize) -> Result<(Recording, u32), Error> {
        let before = self.executable.phases();
        self.decode(position)?;
        let counted = self.executable.phases().zip(before).map(|(after, before)| after.wrapping_sub(before));
        let recording = self.executable.recorded()?;
        let phases = counted.unwrap_or_else(|| launches(&recording));
        Ok((recording, phases))
    }
}

/// Different phases in which anything ran.
fn launches(recording: &Recording) -> u32 {
    let mut phases: Vec<u32> = recording.lanes.iter().flatten().map(|span| span.phase).collect();
    phases.sort_unstable();
    phases.dedup();
    phases.len() as u32
}
