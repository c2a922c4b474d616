//! What can go wrong while a model is loaded or runs.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files are at fault.
    #[error(transparent)]
    Checkpoint(#[from] amoeba_checkpoint::Error),
    /// The model is not one this build can run.
    #[error(transparent)]
    Plan(#[from] amoeba_plan::Error),
    /// The device refused a step or computed nonsense.
    #[error(transparent)]
    Backend(#[from] amoeba_backend::Error),
    /// Tokenizer or template.
    #[error(transparent)]
    Text(#[from] amoeba_text::Error),
    /// The reference is exact.
    #[error("the reference device is exact: leave out --kv-cache and --activations, or use another device")]
    ReferenceIsExact,
    /// A CUDA device refused to load the model.
    #[error(transparent)]
    Cuda(#[from] amoeba_backend_cuda::Error),
    /// The prompt leaves no room for an answer.
    #[error("the prompt is {prompt} tokens long and the context holds {context}: shorten it or raise -c")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Positions reserved.
        context: usize,
    },
    /// No chat template in the folder.
    #[error("this model has no chat template; use --raw to give it the prompt as it is")]
    NoTemplate,
    /// Nothing to continue.
    #[error("the prompt is empty; give at least one character")]
    EmptyPrompt,
    /// A sampling number outside its range.
    #[error(transparent)]
    Sampling(#[from] amoeba_kernels::sample::OutOfRange),
    /// Too many sessions wait.
    #[error("{waiting} requests are waiting for a free slot, as many as may: try again later, or allow more")]
    QueueFull {
        /// Sessions that wait.
        waiting: usize,
    },
    /// The engine ends.
    #[error("no more requests are taken: the engine is shutting down")]
    Draining,
    /// A step that the session had part in failed as a whole.
    #[error("a step that ran this request failed: {said}")]
    StepFailed {
        /// What was wrong, as the step's own error tells.
        said: String,
    },
}
