//! What a recorded step did: spans of work, one list per worker. Every backend that can tell tells it in
//! these terms.

pub use amoeba_plan::Stage;

/// One contiguous interval on one worker. Spans of one worker are in order and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Phase or launch of the step, counted from 0; numbers may be left out.
    pub phase: u32,
    /// Index into the plan's program; `None` for work that serves many ops.
    pub op: Option<u32>,
    /// Ops it serves, from that one on; more than 1 where a launch does the work of several.
    pub ops: u32,
    /// Which part of it, or of the first.
    pub stage: Stage,
    /// Start, in ns since the step's start.
    pub start: u64,
    /// End, in ns since the step's start.
    pub end: u64,
}

/// A recorded step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Spans of each worker; on a GPU all of it is one, whose spans are launches.
    pub lanes: Vec<Vec<Span>>,
    /// Duration of the step in ns; no span ends later.
    pub ns: u64,
    /// Least difference that the clock tells, in ns, where that is coarse; else 0.
    pub tick_ns: u64,
}

impl Span {
    /// The ops it serves.
    pub fn ops(&self) -> std::ops::Range<usize> {
        self.op.map_or(0..0, |op| op as usize..(op + self.ops) as usize)
    }
}
