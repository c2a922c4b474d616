//! Amoeba runs MLX-quantised mixture-of-experts language models.
//!
//! This crate is the door to the engine: load a model by folder or name, then ask it something.
//!
//! ```
//! use amoeba::{Chat, Message, Piece, Request};
//!
//! # fn main() -> Result<(), amoeba::Error> {
//! let mut model = amoeba::load(amoeba::bundled_model()?)?;
//! let chat = Chat {
//!     messages: vec![Message::new("user", "What is the capital of France?")],
//!     add_generation_prompt: true,
//!     ..Chat::default()
//! };
//! let prompt = model.chat_prompt(&chat)?;
//! let request = Request { max_tokens: Some(20), ..Request::default() };
//! let mut answer = String::new();
//! for piece in model.generate(&prompt, &request)? {
//!     match piece? {
//!         Piece::Answer(text) => answer += &text,
//!         Piece::Thought(_) => {} // models that reason think aloud first
//!         Piece::Call(call) => println!("{} {}", call.name, call.arguments), // if the chat has tools
//!     }
//! }
//! assert!(!answer.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! For several turns see [`Conversation`], which keeps the messages and streams into a closure; what
//! consecutive prompts share is computed once. `examples/complete.rs` and `examples/chat.rs` are whole
//! programs.
//!
//! Invariant: no logic of models here; everything below is in the crates that this one re-exports.

mod bundled;
mod conversation;
mod error;

use std::path::Path;

pub use amoeba_engine::{
    Activations, CONTEXT_DEFAULT, Device, Engine, EngineOptions, Event, Finish, Generation, KvType, Limits,
    LoadOptions, Model, Progress, Prompt, RepackCache, Request, Sampling, Session, SessionId, Stats,
};
pub use amoeba_hub as hub;
pub use amoeba_hub::Hub;
pub use amoeba_plan::{PathChoice, Plan};
pub use amoeba_text::{Chat, ChatTemplate, Format, Message, Piece, Stop, Tokenizer, ToolCall, Tools};

pub use bundled::{BUNDLED, bundled_model};
pub use conversation::{Conversation, Reply, stream, stream_within};
pub use error::Error;

/// Loads a model with default options: a folder, or the `owner/name` of a model in the Hugging Face cache
/// (`amoeba pull` brings it there). Never touches the network.
///
/// # Errors
/// The model is not here, is damaged, or is of a family this build cannot run.
pub fn load(name_or_dir: impl AsRef<Path>) -> Result<Model, Error> {
    load_with(name_or_dir, &LoadOptions::default(), &mut |_, _| {})
}

/// Loads a model as [`load`] does, with options; `progress` is called as
/// `progress(done_bytes, total_bytes)`.
///
/// # Errors
/// As [`load`], or a context that the model was not made for.
pub fn load_with(
    name_or_dir: impl AsRef<Path>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Model, Error> {
    let name = name_or_dir.as_ref();
    let dir = match name.to_str() {
        Some(name) => Hub::from_env().resolve(name)?.dir,
        None => name.to_path_buf(), // no name of a model, so a folder
    };
    Ok(Model::load(&dir, options, progress)?)
}
