//! How much other work ran on the machine during a measurement.

use std::time::Instant;

/// Seconds of processor time that everything but this process has used so far; `None` where the system does
/// not tell.
pub type Others = fn() -> Option<f64>;

/// Shortest time over which the clock ticks of the system (10 ms) say something.
const SECONDS_MIN: f64 = 0.25;

/// Watches others from its making on.
pub struct Watch {
    others: Others,
    before: Option<f64>,
    started: Instant,
}

impl Watch {
    /// Starts watching.
    pub fn new(others: Others) -> Watch {
        Watch { others, before: others(), started: Instant::now() }
    }

    /// Cores that others used since; `None` if too little time has passed to tell.
    pub fn cores(&self) -> Option<f64> {
        let seconds = self.started.elapsed().as_secs_f64();
        let used = (self.others)()? - self.before?;
        (seconds >= SECONDS_MIN).then_some((used / seconds).max(0.0))
    }
}
