//! Runs decode programs: the [`Executable`] trait, what all backends share ([`Loaded`]), the reference
//! interpreter, the CPU backend, and models on a GPU ([`gpu`]), whatever drives it.
//!
//! Invariant: no maths here. A backend owns memory, workers and order of execution; what is computed is in
//! `amoeba_kernels`. Start reading at [`Executable`].

mod cpu;
mod device;
mod error;
pub mod gpu;
mod loaded;
mod options;
mod reference;
mod rows;
mod sampler;
mod sequences;
#[doc(hidden)]
pub mod testing;
mod trace;

use std::fmt;
use std::ops::RangeInclusive;

use amoeba_plan::{BufferId, Group, Path, Plan};

pub use cpu::{CAPABILITIES as CPU_CAPABILITIES, Cpu, PackProgress, RepackCache, workspace_bytes};
pub use device::Device;
pub use error::Error;
pub use loaded::{Backend, Draw, Loaded};
pub use options::{CONTEXT_DEFAULT, KernelCache, LoadOptions};
pub use reference::Reference;
pub use rows::{StepRows, check_finite};
pub use sampler::{DeviceSampler, Drawn};
pub use trace::{Recording, Span, Stage};

/// One token of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token id.
    pub token: u32,
    /// Sequence it belongs to.
    pub slot: usize,
    /// Position in the sequence. Rows of one slot are consecutive and continue what is cached.
    pub position: usize,
    /// Whether its logits are wanted.
    pub logits: bool,
}

/// What an executable was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences at a time.
    pub slots: usize,
    /// Positions per sequence.
    pub context: usize,
    /// Rows per step.
    pub rows: usize,
}

/// What caches store keys and values as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// As computed.
    #[default]
    F32,
    /// Rounded to 11 significant bits: half the memory, outside the contract for f32 activations
    /// (figures in the notes of `attention`).
    F16,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
        })
    }
}

/// What activations are rounded to, group by group, where they meet weights of small integers; but where
/// experts are scored they keep 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// 24 bits: as exact as f32 arithmetic.
    #[default]
    F32,
    /// 16 bits: outside the contract for f32 activations (figures in the notes of `linear`).
    Int16,
    /// 8 bits, as llama.cpp does: the fastest, further outside.
    Int8,
    /// On a GPU, in steps of more than eight rows: 11 bits at quantised weights, with an exponent for each of
    /// their groups; bf16 at dense ones. Fewer rows are as with f32.
    F16,
}

impl Activations {
    /// All of them by name.
    pub const NAMES: [(&str, Activations); 4] = [
        ("f32", Activations::F32),
        ("int16", Activations::Int16),
        ("int8", Activations::Int8),
        ("f16", Activations::F16),
    ];

    /// f16 terms that GPUs split each x of a wide step into; `None` if they have no kernels for it.
    pub fn f16_terms(self) -> Option<u8> {
        match self {
            Activations::F32 => Some(2),
            Activations::F16 => Some(1),
            Activations::Int16 | Activations::Int8 => None,
        }
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Activations::NAMES.iter().find(|(_, which)| which == self);
        f.write_str(name.map_or("?", |(name, _)| name))
    }
}

/// What runs a program, to decide by; its names are for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The interpreter: one thread.
    #[default]
    Reference,
    /// Worker threads of this process.
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
}

impl DeviceKind {
    /// Whether its workers are threads, whose number can be chosen.
    pub fn has_threads(self) -> bool {
        self == DeviceKind::Cpu
    }

    /// What a lane of its recordings is called.
    pub fn lane(self, index: usize) -> String {
        match self {
            DeviceKind::Reference | DeviceKind::Cpu => format!("worker {index}"),
            DeviceKind::Cuda(_) => "gpu".to_owned(),
        }
    }
}

/// A plan with weights loaded on a device.
pub trait Executable: Send {
    /// The plan being run.
    fn plan(&self) -> &Plan;

    /// Sizes fixed at load.
    fn limits(&self) -> Limits;

    /// What runs it.
    fn kind(&self) -> DeviceKind;

    /// Device, instruction set, workers: one line.
    fn describe(&self) -> String;

    /// Name of the device, as it is asked for: the first word of [`Executable::describe`].
    fn device(&self) -> String {
        self.describe().split(' ').next().unwrap_or_default().to_owned()
    }

    /// The path a step of that many rows takes through the experts.
    fn path(&self, rows: usize) -> Path;

    /// Step sizes whose results are bit-identical to those of a step of `rows` rows; all, unless the device
    /// says otherwise.
    fn bit_identical_sizes(&self, _rows: usize) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    /// From now on steps of fewer than `rows` rows run as steps of `rows` rows and give the same bits.
    /// Nothing to do where all sizes are bit-identical.
    fn set_rows_min(&mut self, _rows: usize) {}

    /// Runs the program for some rows.
    ///
    /// # Errors
    /// Rows that break [`Limits`], a token outside the vocabulary, or, for a plan with recurrent caches, rows
    /// that neither begin a sequence nor go on where it ended. If such a plan's step fails once it runs, or
    /// is stopped by the probe, its sequences must start again. [`Error::NotFinite`] concerns only sequences
    /// whose logits are not: all logits can be read, and the other sequences go on.
    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), Error>;

    /// Logits of the n-th row that asked for them in the last step, `[vocab]`.
    fn logits(&self, n: usize) -> &[f32];

    /// Draws tokens on the device; `None` where logits come to the host anyway.
    fn sampler(&mut self) -> Option<&mut dyn DeviceSampler> {
        None
    }

    /// Instruction set that a step of `rows` rows runs on, by name; a matrix unit is named only if products
    /// ran on it.
    fn instructions(&self, _rows: usize) -> String {
        "scalar".to_owned()
    }

    /// Bytes of weights, caches and buffers held.
    fn memory(&self) -> usize;

    /// The memory that quantised weights lie in, for measuring what plain reads of it take; empty where the
    /// host cannot read it.
    fn weights(&self) -> Vec<&[u8]> {
        Vec::new()
    }

    /// Parallel phases run so far (wrapping), each of which ends with a wait for its last item; `None` on a
    /// device that does not count them.
    fn phases(&self) -> Option<u32> {
        None
    }

    /// Records up to `spans` spans per worker in each step from now on, except in steps that are probed; 0
    /// turns recording off and frees the room.
    ///
    /// # Errors
    /// The device cannot record, or memory ran out.
    fn record(&mut self, _spans: usize) -> Result<(), Error> {
        Err(Error::CannotRecord(self.describe()))
    }

    /// What the last step did.
    ///
    /// # Errors
    /// It was not recorded, or had more spans than were reserved.
    fn recorded(&mut self) -> Result<Recording, Error> {
        Err(Error::NotRecorded)
    }
}

/// Looks into a running step.
pub trait Probe: Send {
    /// Whether [`Probe::see`] is to be called after the op at this index of the program.
    fn wants(&self, op: usize) -> bool;

    /// Called once after the op; buffers hold what the ops up to here wrote (a backend that runs several ops
    /// in one launch may have run the rest of that launch too).
    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow;

    /// Whether to look at the launches that a step has without a probe, several ops of which may appear at
    /// once; else each op is run alone where the device can, and seen as it left its buffers.
    fn as_run(&self) -> bool {
        false
    }

    /// The ops to be seen next ran together, and are seen when all are done. An op of which nothing is said
    /// ran alone.
    fn group(&mut self, _group: &Group) {}
}

/// Whether a step goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Run the next op.
    Continue,
    /// Leave the step; its logits are void.
    Stop,
}

/// Read access to a step's buffers.
pub trait Buffers {
    /// One row of a buffer.
    fn row(&self, buffer: BufferId, row: usize) -> &[f32];
}
