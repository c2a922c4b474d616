//! The cache as it lies on the disk: finding a model in it, and listing all of it.
use crate::name::{DEFAULT_OWNER, ModelId, page};
use crate::{Error, Hub};
use amoeba_checkpoint::shown;
use std::path::{Path, PathBuf};

/// Longest reference: a commit and a line break, with room to spare.
const REFERENCE_BYTES_MAX: usize = 1024;

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The folder that holds `config.json`.
    pub dir: PathBuf,
    /// How the name was understood, for a person.
    pub how: String,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `owner/name`.
    pub id: String,
    /// Branch or tag, or the commit when no reference points to it.
    pub revision: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// The snapshot folder.
    pub path: PathBuf,
}

/// Where the parts of one model lie, as `huggingface_hub` lays them out.
pub(crate) struct Layout {
    /// `models--owner--name`.
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn new(hub: &Hub, id: &ModelId) -> Self {
        Layout { root: hub.cache.join(format!("models--{}", id.repo().replace('/', "--"))) }
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    /// The snapshot that the revision stands for: through its reference, or itself a commit.
    fn find(&self, revision: &str) -> Option<PathBuf> {
        let commit = read_reference(&self.reference(revision)).unwrap_or_else(|| revision.to_owned());
        let safe = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
        Some(self.snapshot(&commit)).filter(|dir| safe && dir.is_dir())
    }
}

impl Hub {
    /// Finds the model that `name` means, in this order: a folder, `owner/name[@revision]` in the cache, a
    /// bare name as one of `mlx-community` in the cache. Never touches the network.
    ///
    /// # Errors
    /// [`Error::NotFound`] says what was looked for and how to get it, [`Error::Incomplete`] which file a
    /// folder lacks, [`Error::BadName`] why the name cannot be a model's.
    pub fn resolve(&self, name: &str) -> Result<Resolved, Error> {
        let folder = Path::new(name);
        if folder.join("config.json").symlink_metadata().is_ok() {
            let advice = "copy the missing file there";
            check_complete(folder, advice)?;
            return Ok(Resolved { dir: folder.to_path_buf(), how: format!("folder {name}") });
        }
        let parts = name.matches('/').count();
        let is_path = name.starts_with(['.', '/', '~', '\\'])
            || parts > 1 && !name.contains('@') && page(name).is_none();
        if is_path && folder.is_dir() {
            let advice = "name the folder that holds config.json".to_owned();
            return Err(Error::Incomplete {
                dir: folder.to_path_buf(),
                missing: "config.json".to_owned(),
                advice,
            });
        }
        if is_path {
            return Err(Error::BadName {
                name: name.to_owned(),
                why: "it looks like a path, but no such folder exists",
            });
        }
        let id = ModelId::parse(name)?;
        let layout = Layout::new(self, &id);
        let Some(dir) = layout.find(id.revision()) else {
            let looked = format!("    folder   {name}/config.json\n    cache    {}\n", layout.root.display());
            return Err(Error::NotFound { name: name.to_owned(), looked, pull: id.to_string() });
        };
        check_complete(&dir, &format!("finish the download: amoeba pull {id}"))?;
        let commit: String = dir.file_name().unwrap_or_default().to_string_lossy().chars().take(8).collect();
        let bare = if name.contains('/') { String::new() } else { format!(", bare name of {DEFAULT_OWNER}") };
        Ok(Resolved { dir, how: format!("{id} in the cache (commit {commit}{bare})") })
    }

    /// Every model in the cache that is complete, ordered by id and revision.
    ///
    /// # Errors
    /// [`Error::Io`] when the cache cannot be read; a cache that does not exist is empty.
    pub fn list(&self) -> Result<Vec<CachedModel>, Error> {
        let mut found = Vec::new();
        for (folder, root) in entries(&self.cache)? {
            let Some(id) = folder.strip_prefix("models--").map(|id| id.replacen("--", "/", 1)) else {
                continue;
            };
            let mut references = Vec::new();
            collect_references(&root.join("refs"), "", &mut references)?;
            for (commit, path) in entries(&root.join("snapshots"))? {
                if check_complete(&path, "").is_err() {
                    continue; // a pull that failed or goes on, or something else than a model of ours
                }
                let mut names: Vec<&str> =
                    references.iter().filter(|(_, c)| *c == commit).map(|(name, _)| name.as_str()).collect();
                if names.is_empty() {
                    names.push(&commit);
                }
                let bytes = entries(&path)?
                    .iter()
                    .filter_map(|(_, file)| file.metadata().ok())
                    .map(|m| m.len())
                    .sum();
                let models = names.iter().map(|revision| CachedModel {
                    id: id.clone(),
                    revision: (*revision).to_owned(),
                    bytes,
                    path: path.clone(),
                });
                found.extend(models);
            }
        }
        found.sort_by(|a, b| (&a.id, &a.revision).cmp(&(&b.id, &b.revision)));
        Ok(found)
    }
}

/// Whether the folder holds a configuration and weights that may be complete.
pub(crate) fn check_complete(dir: &Path, advice: &str) -> Result<(), Error> {
    let incomplete = |missing: &str| Error::Incomplete {
        dir: dir.to_path_buf(),
        missing: missing.to_owned(),
        advice: advice.to_owned(),
    };
    if dir.join("config.json").symlink_metadata().is_err() {
        return Err(incomplete("config.json"));
    }
    // A folder that cannot be judged is for the checkpoint reader to refuse, in its words.
    match amoeba_checkpoint::missing_weights(dir) {
        Ok(Some(file)) => Err(incomplete(&shown(&file))),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// The commit in a reference.
fn read_reference(path: &Path) -> Option<String> {
    let bytes = amoeba_checkpoint::read_small(path, REFERENCE_BYTES_MAX).ok()??;
    Some(String::from_utf8(bytes).ok()?.trim().to_owned())
}

fn collect_references(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) -> Result<(), Error> {
    // A dot starts what a killed process may have left half written.
    for (name, path) in entries(folder)?.into_iter().filter(|(name, _)| !name.starts_with('.')) {
        if path.is_dir() {
            collect_references(&path, &format!("{prefix}{name}/"), found)?;
        } else if let Some(commit) = read_reference(&path) {
            found.push((format!("{prefix}{name}"), commit));
        }
    }
    Ok(())
}

/// Names and paths in a folder; none when the folder does not exist.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(Error::io("list", folder)(e)),
    };
    let named =
        listing.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    Ok(named.collect())
}
