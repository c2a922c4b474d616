//! Weight files: mapped (the only unsafe code of this crate), or made in memory from a seed.

use crate::Error;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One weight file: mapped, or made in memory.
///
/// A file that shrinks while it is mapped makes later reads beyond its new end raise SIGBUS, which no private
/// mapping prevents. Weights are copied into memory by backends at load, so the window is the load: the
/// length is compared after mapping, [`Shard::check_unchanged`] lets the loader compare again after copying,
/// and a folder others may write to during a load must be copied first (see the security notes).
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) file: String,
    contents: Contents,
    stamp: Option<String>,
}

#[derive(Debug)]
enum Contents {
    Mapped { path: PathBuf, map: Mmap, modified: Option<SystemTime> },
    Made(Vec<u8>),
}

/// Other contents have another stamp: archives and package managers set the time of writing as they like, but
/// nobody sets the time of change or the inode.
#[cfg(unix)]
fn stamp(file: &str, meta: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let (written, changed) = ([meta.mtime(), meta.mtime_nsec()], [meta.ctime(), meta.ctime_nsec()]);
    Some(format!("{file} {} {written:?} {changed:?} {:?}", meta.len(), [meta.dev(), meta.ino()]))
}

#[cfg(not(unix))]
fn stamp(_: &str, _: &Metadata) -> Option<String> {
    None
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
        let contents = Contents::Mapped { path, map, modified: before.modified().ok() };
        let shard = Shard { file: file.to_owned(), contents, stamp: stamp(file, &before) };
        shard.check_unchanged()?;
        Ok(shard)
    }

    /// A file that was made in memory.
    pub(crate) fn made(file: &str, bytes: Vec<u8>) -> Shard {
        Shard { file: file.to_owned(), contents: Contents::Made(bytes), stamp: None }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.contents {
            Contents::Mapped { map, .. } => map,
            Contents::Made(bytes) => bytes,
        }
    }

    /// The container's header with its length, for telling files apart.
    pub(crate) fn header(&self) -> &[u8] {
        let bytes = self.bytes();
        let length = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
        &bytes[..bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8))]
    }

    /// Name, length, times and place on the disk, when it was mapped; `None` for what was made in memory.
    pub(crate) fn stamp(&self) -> Option<&str> {
        self.stamp.as_deref()
    }

    /// Takes the pages under `part` out of this process's memory, whole pages at both ends; false if it is no
    /// part of this file. A refusal of the system changes only how much memory is held. What was made in
    /// memory stays.
    pub(crate) fn release(&self, part: &[u8]) -> bool {
        let Contents::Mapped { map: file, .. } = &self.contents else { return false };
        let (map, part) = (file.as_ptr_range(), part.as_ptr_range());
        if part.start < map.start || part.end > map.end {
            return false;
        }
        #[cfg(unix)]
        {
            let (offset, len) = (part.start.addr() - map.start.addr(), part.end.addr() - part.start.addr());
            // SAFETY: the range was just found to lie in the map, which stays mapped. It is a read-only map
            // of a file, so there is nothing in it to lose: the next access, by any thread and to a neighbour
            // on the same page too, brings the page back from the file as the first one did. That the file
            // may have changed by then is the risk documented above, no other than before the first access.
            let _ = unsafe { file.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
        }
        true
    }

    /// Compares length and modification time with those seen at mapping.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        let Contents::Mapped { path, map, modified } = &self.contents else { return Ok(()) };
        let now = std::fs::metadata(path).map_err(|e| Error::reading(path, "a weight file", e))?;
        if now.len() != map.len() as u64 || now.modified().ok() != *modified {
            let what = format!("changed while it was being read ({} bytes, now {})", map.len(), now.len());
            return Err(Error::corrupt(self.file.as_str(), what));
        }
        Ok(())
    }
}
