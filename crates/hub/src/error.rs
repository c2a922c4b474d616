//! Everything that can go wrong: what, where, and what to do about it.
use std::path::{Path, PathBuf};

/// An error of this crate. No message holds the token or the query of a signed URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name cannot be a model's.
    #[error(
        "`{name}` is not a model name: {why}\n  a name is a folder, `owner/name`, `owner/name@revision`, or \
         `name`"
    )]
    BadName {
        /// The name as given.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Neither a folder nor in the cache.
    #[error("`{name}` was not found; looked for\n{looked}  to download it: amoeba pull {pull}")]
    NotFound {
        /// The name as given.
        name: String,
        /// Where it was looked for, one indented line each.
        looked: String,
        /// The id to pull.
        pull: String,
    },
    /// A folder or a cached model lacks a file that it needs.
    #[error("the model in {dir} is not complete: {missing} is missing\n  {advice}")]
    Incomplete {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        missing: String,
        /// What to do.
        advice: String,
    },
    /// A download was asked for, but the network is switched off.
    #[error(
        "{id} would have to be downloaded, but this is offline mode\n  drop --offline or unset HF_HUB_OFFLINE"
    )]
    Offline {
        /// The model.
        id: String,
    },
    /// The server wants to know who asks (401).
    #[error(
        "{id}: the server refuses without a valid token (401)\n  check the name; if the model is private or \
         gated, set HF_TOKEN to a token of your account"
    )]
    Unauthorized {
        /// The model.
        id: String,
    },
    /// The account may not read the model (403).
    #[error(
        "{id}: this account may not read the model (403)\n  accept its terms at {page}, or use another token"
    )]
    Forbidden {
        /// The model.
        id: String,
        /// The model's page.
        page: String,
    },
    /// The server has no such thing (404).
    #[error(
        "{id}: {what} does not exist on the server (404)\n  check the spelling of the name and of the \
         revision"
    )]
    NoSuchModel {
        /// The model.
        id: String,
        /// The model, the revision or the file.
        what: String,
    },
    /// The server answered with an unexpected status.
    #[error("{url}: the server answered {status}\n  try again later, or another HF_ENDPOINT")]
    Status {
        /// The URL without its query.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server was not reached or the connection broke, as often as was tried.
    #[error("{url}: {why}, after {attempts} attempts\n  run the same command again: what is here is kept")]
    Network {
        /// The URL without its query.
        url: String,
        /// The last failure.
        why: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server's answer breaks the protocol or asks for something unsafe.
    #[error("{url}: {why}\n  is this a Hugging Face endpoint? (HF_ENDPOINT)")]
    BadAnswer {
        /// The URL without its query.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The repository holds no model that this program could run.
    #[error(
        "{id} holds no {missing}\n  only MLX models in safetensors format can be run (try mlx-community)"
    )]
    NotAModel {
        /// The model.
        id: String,
        /// What is missing.
        missing: String,
    },
    /// The listing has no digest for a file, so nothing could tell whether it arrives as it is.
    #[error(
        "{url}: the server gives no checksum for {file}\n  ask another HF_ENDPOINT, or trust lengths alone \
         with --no-verify"
    )]
    NoDigest {
        /// The listing's URL.
        url: String,
        /// The file.
        file: String,
    },
    /// The server's certificate is of an authority that this machine does not know.
    #[error(
        "{url}: {why}\n  if your network signs connections anew, name the file with its certificate (PEM) in \
         SSL_CERT_FILE"
    )]
    Untrusted {
        /// The URL without its query.
        url: String,
        /// What the check said.
        why: String,
    },
    /// What arrived is not what the listing promised; it was deleted.
    #[error(
        "{file}: wrong checksum, the file was dropped\n  expected {expected}\n  received {found}\n  pull \
         again"
    )]
    Checksum {
        /// The file.
        file: String,
        /// The digest of the listing.
        expected: String,
        /// The digest of the bytes.
        found: String,
    },
    /// Not enough room for the download.
    #[error(
        "not enough disk space at {dir}: {need} bytes needed, {free} free\n  make room, or set HF_HUB_CACHE"
    )]
    DiskFull {
        /// The cache.
        dir: PathBuf,
        /// Bytes needed, reserve included.
        need: u64,
        /// Bytes free.
        free: u64,
    },
    /// The file system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps a file-system error: `.map_err(Error::io("write", path))`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { doing, path, source }
    }
}
