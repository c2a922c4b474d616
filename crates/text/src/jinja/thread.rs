//! Templates run on a thread of their own, with a deep stack, which the caller can leave behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use minijinja::machinery::make_string_output;
use minijinja::value::Serde;
use minijinja::{ErrorKind, Value};

use super::{Program, environment};
use crate::limits;

/// How often the caller looks whether it should stop.
const LOOK: Duration = Duration::from_millis(20);

/// What a template is to do.
#[derive(Clone)]
pub(crate) struct Job {
    /// The prepared source.
    pub source: Arc<str>,
    /// What its variables hold; `None` only compiles it.
    pub context: Option<serde_json::Map<String, serde_json::Value>>,
    /// A fixed clock, in seconds since 1970.
    pub time: Option<u64>,
}

/// Why there is no text.
pub(crate) enum Failed {
    /// The template.
    Template(minijinja::Error),
    /// There is no such thread; the reason.
    Thread(String),
    /// The caller stopped it.
    Stopped,
}

/// Renders with `stop` in view.
///
/// What a template can nest, and so the stack that printing and freeing it takes, is in proportion to its
/// steps. Nearly all templates are done within an eighth of the steps, for which a small stack does.
pub(crate) fn render(job: &Job, stop: &dyn Fn() -> bool) -> Result<String, Failed> {
    let small = limits::TEMPLATE_STACK / 16;
    let few = limits::TEMPLATE_STEPS / 16;
    let deep_source =
        job.source.len().saturating_mul(limits::TEMPLATE_STACK / limits::TEMPLATE_BYTES as usize);
    match attempt(job, few, small.max(deep_source), stop) {
        Err(Failed::Template(error)) if error.kind() == ErrorKind::OutOfFuel => {
            attempt(job, limits::TEMPLATE_STEPS, limits::TEMPLATE_STACK, stop)
        }
        result => result,
    }
}

fn attempt(job: &Job, steps: u64, stack: usize, stop: &dyn Fn() -> bool) -> Result<String, Failed> {
    let (tell, told) = channel();
    let stopped = Arc::new(AtomicBool::new(false));
    let (job, seen) = (job.clone(), Arc::clone(&stopped));
    let thread = std::thread::Builder::new().name("template".into()).stack_size(stack);
    let started = thread.spawn(move || drop(tell.send(work(job, steps, seen))));
    started.map_err(|error| {
        Failed::Thread(format!("a thread with a stack of {} MiB cannot start: {error}", stack >> 20))
    })?;
    loop {
        match told.recv_timeout(LOOK) {
            Ok(result) => return result.map_err(Failed::Template),
            Err(RecvTimeoutError::Timeout) if stop() => {
                stopped.store(true, Ordering::Relaxed);
                return Err(Failed::Stopped);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Failed::Thread("it panicked".into())),
        }
    }
}

fn work(job: Job, steps: u64, stop: Arc<AtomicBool>) -> Result<String, minijinja::Error> {
    let program = Program::compile(&job.source)?;
    let mut out = String::new();
    if let Some(context) = job.context {
        let env = environment(steps, job.time, stop)?;
        program.run(&env, Value::from(Serde(context)), &mut make_string_output(&mut out))?;
        if out.len() > limits::OUTPUT_BYTES {
            return Err(super::too_long());
        }
    }
    Ok(out)
}
