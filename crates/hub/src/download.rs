//! One file: resumed where it stopped, hashed while it arrives, and dropped when its digest is wrong.
use crate::name::is_hex;
use crate::remote::{DRIP_BYTES, Failure, Remote, bad};
use crate::{Error, Progress};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use ureq::http::{StatusCode, header};

const BLOCK_BYTES: usize = 256 << 10;

/// What the listing says that a file's bytes must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Digest {
    /// Large files: SHA-256 of the bytes.
    Sha256(String),
    /// Small files: SHA-1 of the git blob.
    Git(String),
    /// Nothing; the name is made up.
    Unknown(String),
}

impl Digest {
    /// From the listing's entry of a file; `fallback` names the blob when there is no digest.
    pub(crate) fn of(entry: &serde_json::Value, fallback: String) -> Self {
        let text = |v: Option<&serde_json::Value>| v.and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let sha256 = text(entry.get("lfs").and_then(|l| l.get("sha256").or_else(|| l.get("oid"))));
        let git = text(entry.get("blobId"));
        match (is_hex(&sha256, 64), is_hex(&git, 40), entry.get("lfs").is_some_and(|l| !l.is_null())) {
            (true, ..) => Digest::Sha256(sha256),
            // The git digest of a large file is that of its pointer, so it says nothing about the bytes.
            (false, true, false) => Digest::Git(git),
            _ => Digest::Unknown(fallback),
        }
    }

    /// The file's name among the blobs.
    pub(crate) fn blob(&self) -> &str {
        match self {
            Digest::Sha256(name) | Digest::Git(name) | Digest::Unknown(name) => name,
        }
    }
}

/// A file of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) file: String,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
    None,
}

impl Hasher {
    fn new(item: &Item) -> Self {
        match item.digest {
            Digest::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Digest::Git(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {}\0", item.size))),
            Digest::Unknown(_) => Hasher::None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Git(h) => h.update(bytes),
            Hasher::None => {}
        }
    }

    fn finish(self) -> Option<String> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Hasher::Sha256(h) => Some(hex(&h.finalize())),
            Hasher::Git(h) => Some(hex(&h.finalize())),
            Hasher::None => None,
        }
    }
}

/// A partial file, always hashed as far as it goes.
struct Part<'a> {
    item: &'a Item,
    path: PathBuf,
    file: File,
    bytes: u64,
    hasher: Hasher,
    /// Which state of the file on the server these bytes are of, if that is known.
    etag: Option<String>,
}

impl<'a> Part<'a> {
    /// Opens what an earlier run left, or starts. Without a digest nobody could tell whether both runs see
    /// the same file, so it starts.
    fn open(path: &Path, item: &'a Item) -> Result<Self, Error> {
        let known = !matches!(item.digest, Digest::Unknown(_));
        // A pipe would block, a link would have something else written to.
        if path.symlink_metadata().is_ok_and(|meta| !known || !meta.is_file()) {
            std::fs::remove_file(path).map_err(Error::io("remove", path))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        let mut hasher = Hasher::new(item);
        let mut block = vec![0; BLOCK_BYTES];
        let mut bytes = 0;
        loop {
            let n = file.read(&mut block).map_err(Error::io("read", path))?;
            if n == 0 {
                break;
            }
            hasher.update(&block[..n]);
            bytes += n as u64;
        }
        let mut part = Part { item, path: path.to_path_buf(), file, bytes, hasher, etag: None };
        if bytes > item.size {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.etag = None;
        let cut = self.file.set_len(0).and_then(|()| self.file.rewind());
        cut.map_err(Error::io("truncate", &self.path))?;
        (self.bytes, self.hasher) = (0, Hasher::new(self.item));
        Ok(())
    }

    fn append(&mut self, block: &[u8]) -> Result<(), Error> {
        self.file.write_all(block).map_err(Error::io("write", &self.path))?;
        self.hasher.update(block);
        self.bytes += block.len() as u64;
        Ok(())
    }

    /// Compares the digest, makes the bytes durable and moves the file into place.
    fn finish(self, blob: &Path) -> Result<(), Error> {
        if let Some(found) = self.hasher.finish().filter(|found| found != self.item.digest.blob()) {
            std::fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))?;
            let expected = self.item.digest.blob().to_owned();
            return Err(Error::Checksum { file: self.item.file.clone(), expected, found });
        }
        self.file.sync_all().map_err(Error::io("write", &self.path))?;
        std::fs::rename(&self.path, blob).map_err(Error::io("create", blob))
    }
}

/// Where the unfinished bytes of a blob are kept.
pub(crate) fn part_path(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".amoeba-part");
    PathBuf::from(name)
}

/// Fetches the file into `blob`; when it fails, what has arrived stays for the next run.
pub(crate) fn fetch(
    remote: &Remote<'_>,
    url: &str,
    blob: &Path,
    item: &Item,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let mut part = Part::open(&part_path(blob), item)?;
    progress.bytes(&item.file, part.bytes, item.size);
    let mut patience = remote.patience();
    let mut best = part.bytes;
    while part.bytes < item.size {
        if let Err(failure) = receive(remote, url, &mut part, progress) {
            if part.bytes >= best.saturating_add(DRIP_BYTES) || part.bytes == item.size {
                best = part.bytes;
                patience.reset();
            }
            patience.wait(url, failure, progress)?;
        }
    }
    if let Digest::Unknown(_) = item.digest {
        progress.note(&format!("{}: the server gave no checksum; only the length was compared", item.file));
    }
    part.finish(blob)
}

/// One request: appends what it brings until the file is whole or the connection fails.
fn receive(
    remote: &Remote<'_>,
    url: &str,
    part: &mut Part<'_>,
    progress: &mut dyn Progress,
) -> Result<(), Failure> {
    let (file, size) = (&part.item.file, part.item.size);
    if part.etag.is_none() && matches!(part.item.digest, Digest::Unknown(_)) {
        part.restart()?; // nothing would tell that the file changed in between
    }
    let response = remote.get(url, part.bytes, part.etag.as_deref(), file)?;
    let again = |why: String| Failure::again(&why);
    let etag = response.headers().get(header::ETAG).and_then(|v| v.to_str().ok());
    let etag = etag.filter(|etag| !etag.starts_with("W/")).map(str::to_owned); // weak ones are of no use here
    match response.status() {
        StatusCode::PARTIAL_CONTENT if part.etag.is_some() && part.etag != etag => {
            part.restart()?;
            return Err(again("the file changed on the server".to_owned()));
        }
        StatusCode::PARTIAL_CONTENT => {
            let range =
                response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or("");
            if !range.starts_with(&format!("bytes {}-", part.bytes)) || !range.ends_with(&format!("/{size}"))
            {
                part.restart()?;
                return Err(again(format!("the server sent another range than asked for ({range})")));
            }
        }
        StatusCode::OK => part.restart()?,
        _ => {
            part.restart()?;
            return Err(again("the server has no such range".to_owned()));
        }
    }
    let mut reader = response.into_body().into_reader();
    let (mut block, mut pace) = (vec![0; BLOCK_BYTES], remote.pace());
    part.etag = etag;
    loop {
        let n = reader.read(&mut block).map_err(|e| again(format!("the connection broke: {e}")))?;
        if n == 0 && part.bytes < size {
            return Err(again(format!("the connection closed after {} of {size} bytes", part.bytes)));
        }
        if n == 0 {
            return Ok(());
        }
        if part.bytes + n as u64 > size {
            part.restart()?;
            return Err(bad(url, &format!("{file} is longer than the {size} bytes that were listed")).into());
        }
        part.append(&block[..n])?;
        progress.bytes(file, part.bytes, size);
        pace.check(n)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_digest_of_a_listing_is_understood() {
        let (sha256, git) = ("a".repeat(64), "b".repeat(40));
        let of = |entry| Digest::of(&entry, "fallback".to_owned());
        assert_eq!(of(json!({"blobId": git, "lfs": {"sha256": sha256}})), Digest::Sha256(sha256.clone()));
        assert_eq!(of(json!({"blobId": git})), Digest::Git(git.clone()));
        assert_eq!(of(json!({"blobId": git, "lfs": null})), Digest::Git(git.clone()));
        let unknown = Digest::Unknown("fallback".to_owned());
        for entry in
            [json!({}), json!({"blobId": "../../x"}), json!({"blobId": git, "lfs": {"sha256": "../x"}})]
        {
            assert_eq!(of(entry), unknown);
        }
    }

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let hash = |digest| {
            let mut hasher = Hasher::new(&Item { file: String::new(), size: 6, digest });
            hasher.update(b"hello\n");
            hasher.finish().unwrap()
        };
        assert_eq!(hash(Digest::Git(String::new())), "ce013625030ba8dba906f756967f9e9ca394464a");
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(hash(Digest::Sha256(String::new())), sha256);
    }
}
