//! The one way to read the small files of a model folder, which strangers made: configurations, templates,
//! vocabularies, the index.

use crate::Error;
use crate::error::shown;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// Reads a whole file of at most `limit` bytes; `None` if it is not there. Only regular files are opened, so
/// no pipe can block and no device can feed without end. A link may lead to another file of its folder or,
/// from a snapshot in a Hugging Face cache, to the blobs of the same model.
///
/// # Errors
/// [`Error::Unsupported`] for anything but such a file, [`Error::Config`] for a longer one, or [`Error::Io`].
pub fn read_small(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let fail = |e| Error::reading(path, "a readable file", e);
    match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => regular(path, &found.map_err(fail)?)?, // before opening: a pipe would block in open
    }
    if !stays_inside(path).map_err(fail)? {
        let what = "is a link out of the model folder, which is not followed; put the file itself there";
        return Err(Error::unsupported(name(path), what));
    }
    let handle = File::open(path).map_err(fail)?;
    let meta = handle.metadata().map_err(fail)?;
    regular(path, &meta)?; // it may be another file by now
    let expected = meta.len();
    let too_long = |n: u64| Error::config(name(path), format!("is {n} bytes long, the limit is {limit}"));
    if expected > limit as u64 {
        return Err(too_long(expected));
    }
    // One byte more than promised, so that a growing file is noticed without another allocation.
    let mut bytes = Vec::with_capacity(expected as usize + 1);
    handle.take(expected + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > expected {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

/// The file's name, for messages.
pub(crate) fn name(path: &Path) -> String {
    shown(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

fn regular(path: &Path, meta: &Metadata) -> Result<(), Error> {
    match meta.is_file() {
        true => Ok(()),
        false => Err(Error::unsupported(name(path), "is not a regular file; expected a plain file")),
    }
}

/// Whether the file lies where a model's files may lie, once links are followed.
fn stays_inside(path: &Path) -> io::Result<bool> {
    if !path.symlink_metadata()?.is_symlink() {
        return Ok(true);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (folder, target) = (folder.canonicalize()?, path.canonicalize()?);
    // `models--owner--name/snapshots/commit/file`, or a file in a folder of the snapshot.
    let snapshots = folder.ancestors().skip(1).take(2).find(|up| up.ends_with("snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
    Ok(target.starts_with(&folder) || blobs.is_some_and(|blobs| target.starts_with(blobs)))
}
