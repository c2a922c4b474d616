//! What a download tells its caller; how it looks on a screen is the caller's business.

/// What a pull is going to do, known before the first byte of a file is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullPlan {
    /// The model, `owner/name`.
    pub id: String,
    /// The commit that the revision stands for.
    pub commit: String,
    /// Number of files of the model.
    pub files: usize,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes that are still to be fetched.
    pub fetch_bytes: u64,
    /// Free space where the cache is, if the system says.
    pub free_bytes: Option<u64>,
}

/// Receives the progress of a pull. All methods do nothing unless they are implemented.
pub trait Progress {
    /// Called once, before anything is fetched.
    fn plan(&mut self, _plan: &PullPlan) {}
    /// `done` of `total` bytes of `file` are here; called at the start (more than 0 when a download is
    /// resumed), after each block, and with `done == total` when the file is verified and in place.
    fn bytes(&mut self, _file: &str, _done: u64, _total: u64) {}
    /// Something a person may want to know: a retry, a wait for another process, a file without checksum.
    fn note(&mut self, _text: &str) {}
}

/// No progress is wanted.
impl Progress for () {}
