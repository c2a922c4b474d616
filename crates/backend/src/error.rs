//! What can go wrong in a backend.

use crate::Limits;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Weights missing or misshapen.
    #[error(transparent)]
    Checkpoint(#[from] amoeba_checkpoint::Error),
    /// The plan and the checkpoint disagree.
    #[error(transparent)]
    Plan(#[from] amoeba_plan::Error),
    /// A step without rows, or with more than were reserved.
    #[error("a step of {found} rows: this model was loaded for 1 to {limit}")]
    TooManyRows {
        /// Rows given.
        found: usize,
        /// Rows reserved.
        limit: usize,
    },
    /// A position past the reserved context, or an unknown sequence.
    #[error(
        "position {position} of sequence {slot} is outside the context of {} positions × {} sequences; \
         load with a larger context (-c)", limits.context, limits.slots
    )]
    OutOfContext {
        /// Position asked for.
        position: usize,
        /// Sequence asked for.
        slot: usize,
        /// What was reserved.
        limits: Limits,
    },
    /// A context the model was not made for.
    #[error(
        "a context of {asked} positions: this model takes 1 to {longest}; use -c with a number in that range"
    )]
    Context {
        /// What was asked for.
        asked: usize,
        /// What the model was made for.
        longest: usize,
    },
    /// A sequence of a recurrent model asked to continue elsewhere than where it ended, or twice in a step.
    #[error(
        "sequence {slot} cannot continue at position {position}: this model keeps a summary of what it \
         read and cannot go back; \
         {}", next.map_or("start the sequence again, at position 0".to_owned(), |next| format!(
            "continue at position {next}, row by row without gaps, or start the sequence again, at position 0"
        ))
    )]
    NotContinuous {
        /// Sequence asked for.
        slot: usize,
        /// Position asked for.
        position: usize,
        /// Where it can continue; `None` after a step that failed or was stopped.
        next: Option<usize>,
    },
    /// A token id past the embedding table.
    #[error("token {token} is outside the vocabulary of {vocab}; tokenizer.json is of another model")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Rows of the table.
        vocab: usize,
    },
    /// The system has no room for caches or buffers.
    #[error("cannot reserve {} MiB for caches and buffers; load with a smaller context (-c)", bytes >> 20)]
    OutOfMemory {
        /// Bytes of the one reservation that failed.
        bytes: usize,
    },
    /// An instruction set this machine does not run.
    #[error(
        "this machine does not run {0}; leave the choice to amoeba, or see `amoeba doctor` for what it has"
    )]
    Isa(amoeba_kernels::simd::Isa),
    /// NaN or infinity in the logits.
    #[error(
        "the model computed {value} as logit of token {token} (row {row} of the step): the weights are \
         damaged or the activations overflowed; check the file with `amoeba inspect --check-tensors`"
    )]
    NotFinite {
        /// Row of the step.
        row: usize,
        /// First token concerned.
        token: usize,
        /// Its value.
        value: f32,
    },
    /// A device failed while a step ran; the executable cannot be used further.
    #[error("{what} failed on {device}: {said}; load the model again, or run it with --device cpu")]
    Device {
        /// Which.
        device: String,
        /// What was being done.
        what: &'static str,
        /// The driver's words.
        said: String,
    },
    /// The device has no kernels that round activations so.
    #[error("--activations {asked} is not for {device}, which has {others}")]
    Activations {
        /// What was asked for.
        asked: crate::Activations,
        /// The device, or its kind.
        device: &'static str,
        /// What it has.
        others: &'static str,
    },
    /// The device has no tracer.
    #[error("{0} cannot record what a step does; trace on another device (--device cpu)")]
    CannotRecord(String),
    /// Nothing to tell.
    #[error("the last step was not recorded: it failed, was probed, or recording was off")]
    NotRecorded,
    /// More happened than there was room for.
    #[error("a worker had {needed} spans in one step and room was reserved for {reserved}")]
    RecordingFull {
        /// Spans reserved per worker.
        reserved: usize,
        /// Spans of the worker that had too many.
        needed: usize,
    },
    /// A worker thread panicked: a bug; the executable cannot be used further.
    #[error(
        "a worker thread panicked; this is a bug in amoeba, please report it with the model's config.json"
    )]
    WorkerPanicked,
    /// Threads could not be started.
    #[error("cannot start worker threads: {0}; try fewer with -t")]
    Threads(std::io::Error),
}
