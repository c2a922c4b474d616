//! Memory maps: the only unsafe code of this crate.

use crate::Error;
use memmap2::Mmap;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One mapped weight file.
///
/// A file that shrinks while it is mapped makes later reads beyond its new end raise SIGBUS, which no private
/// mapping prevents. Weights are copied into memory by backends at load, so the window is the load: the length
/// is compared after mapping, [`Shard::check_unchanged`] lets the loader compare again after copying, and a
/// folder others may write to during a load must be copied first (see the security notes).
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) file: String,
    path: PathBuf,
    map: Mmap,
    modified: Option<SystemTime>,
}

impl Shard {
    /// Maps `dir/file`. Symlinks are followed: the Hugging Face cache links `snapshots/…` to `blobs/…`. What
    /// they lead to must be a regular file, so no pipe or device can block or feed the loader.
    pub(crate) fn map(dir: &Path, file: &str) -> Result<Shard, Error> {
        let path = dir.join(file);
        let fail = |e| Error::reading(&path, "a weight file", e);
        let regular = |m: Metadata| match m.is_file() {
            true => Ok(m),
            false => Err(Error::unsupported(file, "is not a regular file; weights must be plain files")),
        };
        regular(std::fs::metadata(&path).map_err(fail)?)?; // before opening: a pipe would block in open
        let handle = File::open(&path).map_err(fail)?;
        let before = regular(handle.metadata().map_err(fail)?)?;
        if before.len() < 8 {
            let what = format!("is {} bytes long, shorter than the 8 bytes of a header length", before.len());
            return Err(Error::corrupt(file, what));
        }
        // SAFETY: the map is read-only and lives as long as every slice borrowed from it. Another process may
        // still change the file: changed bytes are only ever read as numbers (headers are copied out before
        // they are trusted), and shrinking is the documented risk above.
        let map = unsafe { Mmap::map(&handle) }.map_err(fail)?;
        let shard = Shard { file: file.to_owned(), map, modified: before.modified().ok(), path };
        shard.check_unchanged()?;
        Ok(shard)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Compares length and modification time with those seen at mapping.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        let now =
            std::fs::metadata(&self.path).map_err(|e| Error::reading(&self.path, "a weight file", e))?;
        if now.len() != self.map.len() as u64 || now.modified().ok() != self.modified {
            let what =
                format!("changed while it was being read ({} bytes, now {})", self.map.len(), now.len());
            return Err(Error::corrupt(self.file.as_str(), what));
        }
        Ok(())
    }
}
