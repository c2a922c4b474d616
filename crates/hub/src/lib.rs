//! Model names and where the models are: a local folder, the Hugging Face cache, or a download into that
//! cache.
//!
//! Owns: what a name means ([`Hub::resolve`]), the download ([`Hub::pull`]) and the listing of the cache
//! ([`Hub::list`]). Invariants:
//! - only `pull` touches the network, never when offline, and the token goes to the endpoint's own origin
//!   alone;
//! - a file appears in the cache only after its checksum was verified (or its length alone, if the caller
//!   says so), and a reference only after all its files;
//! - names, revisions and file names from outside become paths only after [`name`]'s strict check;
//! - nothing of this process is global: what the environment says is read once, in [`Hub::from_env`].
//!
//! The cache is shared with Python's `huggingface_hub`: `models--owner--name/{blobs,refs,snapshots}`.
//! Start reading at `pull.rs`; `download.rs` brings one file, `remote.rs` speaks HTTP.
mod cache;
mod download;
mod error;
mod hub;
pub mod name;
mod progress;
mod pull;
mod remote;
mod roots;

pub use cache::{CachedModel, Resolved};
pub use error::Error;
pub use hub::Hub;
pub use name::ModelId;
pub use progress::{Progress, PullPlan};
pub use pull::PullOptions;
