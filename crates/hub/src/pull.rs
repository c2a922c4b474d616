//! `pull`: listing → plan and disk check → each file → snapshot → reference, under a lock per model.
use crate::cache::{Layout, check_complete};
use crate::download::{Digest, Item, fetch, part_path};
use crate::name::{ModelId, is_tiktoken, is_wanted, is_weights};
use crate::remote::{Remote, bad};
use crate::{Error, Hub, Progress, PullPlan};
use std::fs::{File, TryLockError, create_dir_all};
use std::path::{Path, PathBuf};

const FILES_MAX: usize = 10_000;

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Branch, tag or commit; it overrides that of the name. `main` when neither says.
    pub revision: Option<String>,
    /// Take files for which the server gives no digest; only their length is compared.
    pub no_verify: bool,
}

impl Hub {
    /// Downloads the model into the cache, or completes what is there, and returns its snapshot folder.
    ///
    /// Fetches configuration, tokeniser, templates and safetensors weights; never pickles. A repository that
    /// lacks one of these is refused before anything is fetched. Each file is verified before it appears, by
    /// a digest that the listing must give unless the options say otherwise. A second process that pulls the
    /// same model waits for the first.
    ///
    /// # Errors
    /// See [`Error`]: offline, refused by the server, broken connection (resumed by the next call), no or a
    /// wrong checksum, not enough disk space.
    pub fn pull(
        &self,
        id: &str,
        options: &PullOptions,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, Error> {
        let mut id = ModelId::parse(id)?;
        if let Some(revision) = &options.revision {
            id = id.at(revision)?;
        }
        let remote = Remote::new(self, &id)?;
        let (url, listing) = remote.listing(progress)?;
        let commit = listing.get("sha").and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let items = wanted(&id, &url, &commit, &listing)?;
        let unknown = items.iter().find(|item| matches!(item.digest, Digest::Unknown(_)));
        if let Some(Item { file, .. }) = unknown.filter(|_| !options.no_verify) {
            return Err(Error::NoDigest { url, file: file.clone() });
        }

        if let Some(file) = open_end(&items) {
            progress.note(&format!("{id} has no {file}: its weights may not be complete"));
        }
        let layout = Layout::new(self, &id);
        let blobs = layout.blobs();
        create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
        let _lock = lock(&layout.root, progress)?;
        drop_wrong_lengths(&blobs, &items)?;
        self.announce(&id, &commit, &blobs, &items, progress)?;

        let snapshot = layout.snapshot(&commit);
        create_dir_all(&snapshot).map_err(Error::io("create", &snapshot))?;
        for item in &items {
            let blob = blobs.join(item.digest.blob());
            if !blob.is_file() {
                fetch(&remote, &remote.file_url(&commit, &item.file), &blob, item, progress)?;
            }
            link(&blob, &snapshot.join(&item.file))?;
            progress.bytes(&item.file, item.size, item.size);
        }
        check_complete(&snapshot, "the repository lacks it: tell its owner")?;
        if id.revision() != commit {
            write_reference(&layout.reference(id.revision()), &commit)?;
        }
        Ok(snapshot)
    }

    /// Tells the plan, and refuses it when the disk is too small.
    fn announce(
        &self,
        id: &ModelId,
        commit: &str,
        blobs: &Path,
        items: &[Item],
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let missing = |item: &Item| {
            let blob = blobs.join(item.digest.blob());
            let here = part_path(&blob).metadata().map_or(0, |m| m.len().min(item.size));
            if blob.is_file() { 0 } else { item.size - here }
        };
        let fetch_bytes = items.iter().map(missing).fold(0, u64::saturating_add);
        let plan = PullPlan {
            id: id.repo().to_owned(),
            commit: commit.to_owned(),
            files: items.len(),
            total_bytes: items.iter().map(|i| i.size).fold(0, u64::saturating_add),
            fetch_bytes,
            free_bytes: free_bytes(blobs),
        };
        progress.plan(&plan);
        let need = fetch_bytes.saturating_add(self.reserve_bytes);
        match plan.free_bytes {
            Some(free) if fetch_bytes > 0 && free < need => {
                Err(Error::DiskFull { dir: self.cache.clone(), need, free })
            }
            _ => Ok(()),
        }
    }
}

/// The files of the listing that belong to a model; an error when they make none.
fn wanted(id: &ModelId, url: &str, commit: &str, listing: &serde_json::Value) -> Result<Vec<Item>, Error> {
    let siblings = listing.get("siblings").and_then(|v| v.as_array());
    let siblings = siblings.ok_or_else(|| bad(url, "the listing names no files"))?;
    if siblings.len() > FILES_MAX {
        return Err(bad(url, "the listing names more than 10,000 files"));
    }
    let mut items: Vec<Item> = Vec::new();
    for entry in siblings {
        let file = entry.get("rfilename").and_then(|v| v.as_str()).unwrap_or_default();
        if !is_wanted(file) || items.iter().any(|i| i.file == file) {
            continue;
        }
        let size = entry.get("size").and_then(|v| v.as_u64());
        let size = size.ok_or_else(|| bad(url, &format!("the listing gives no size for {file}")))?;
        let digest = Digest::of(entry, format!("{commit}-{}", file.replace('/', "--")));
        items.push(Item { file: file.to_owned(), size, digest });
    }
    if let Some(missing) = lacks(&items) {
        return Err(Error::NotAModel { id: id.to_string(), missing });
    }
    items.sort_by(|a, b| (a.size, &a.file).cmp(&(b.size, &b.file)));
    Ok(items)
}

/// What a model needs to run and the listing does not have.
fn lacks(items: &[Item]) -> Option<String> {
    let any = |test: &dyn Fn(&str) -> bool| items.iter().any(|item| test(&item.file));
    let needed: [(&str, &dyn Fn(&str) -> bool); 3] = [
        ("config.json", &|file| file == "config.json"),
        ("model*.safetensors", &is_weights),
        ("tokenizer.json (or tiktoken.model)", &|file| file == "tokenizer.json" || is_tiktoken(file)),
    ];
    needed.iter().find(|(_, test)| !any(*test)).map(|(name, _)| (*name).to_owned())
}

/// The last file of a set that begins and does not end. Some converters name it otherwise, so it may be
/// whole.
fn open_end(items: &[Item]) -> Option<String> {
    let number = items.iter().find_map(|item| item.file.strip_prefix("model-00001-of-"))?;
    let last = format!("model-{}-of-{number}", number.strip_suffix(".safetensors")?);
    (!items.iter().any(|item| item.file == last)).then_some(last)
}

/// One process at a time per model. The system drops the lock when its holder ends, however it ends.
fn lock(root: &Path, progress: &mut dyn Progress) -> Result<File, Error> {
    let path = root.join(".amoeba-lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress.note("another process is downloading this model: waiting for it");
            file.lock().map_err(Error::io("lock", &path)).map(|()| file)
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

/// A blob of another length than listed was damaged after it was verified: fetch it again.
fn drop_wrong_lengths(blobs: &Path, items: &[Item]) -> Result<(), Error> {
    for item in items {
        let blob = blobs.join(item.digest.blob());
        if blob.metadata().is_ok_and(|m| m.len() != item.size) {
            std::fs::remove_file(&blob).map_err(Error::io("remove", &blob))?;
        }
    }
    Ok(())
}

/// Makes `pointer` (in `snapshots/<commit>/`) show `blob` (in `blobs/`).
fn link(blob: &Path, pointer: &Path) -> Result<(), Error> {
    if pointer.canonicalize().ok().is_some_and(|p| blob.canonicalize().is_ok_and(|b| b == p)) {
        return Ok(());
    }
    if pointer.symlink_metadata().is_ok() {
        std::fs::remove_file(pointer).map_err(Error::io("replace", pointer))?;
    }
    let folder = pointer.parent().unwrap_or(pointer);
    create_dir_all(folder).map_err(Error::io("create", folder))?; // of templates
    #[cfg(unix)]
    let made = {
        let up = if folder.ends_with("additional_chat_templates") { "../../../blobs" } else { "../../blobs" };
        let target = Path::new(up).join(blob.file_name().unwrap_or_default());
        std::os::unix::fs::symlink(target, pointer)
    };
    #[cfg(not(unix))]
    let made = std::fs::hard_link(blob, pointer).or_else(|_| std::fs::copy(blob, pointer).map(|_| ()));
    made.map_err(Error::io("create", pointer))
}

/// Replaces the reference in one step: a reader sees the old commit or the new one.
fn write_reference(path: &Path, commit: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    create_dir_all(folder).map_err(Error::io("create", folder))?;
    let fresh = folder.join(format!(".amoeba-{commit}"));
    std::fs::write(&fresh, commit).map_err(Error::io("write", &fresh))?;
    std::fs::rename(&fresh, path).map_err(Error::io("write", path))
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}
