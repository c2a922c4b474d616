//! What leaves the folder of packed weights. A file is named after the model's folder and what it was made of
//! (`owner-key`). Before one is written, all others of its owner go (the model has changed, so they fit
//! nothing any more), then half-written ones that no process is at, then those that were not used for
//! longest, until the new one fits. What has another kind of name is left alone and not counted.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Who a file is kept for: the model's folder, whichever revision the Hugging Face cache has of it.
pub fn owner(model: &Path) -> String {
    let path = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let folder = path.parent().filter(|parent| parent.ends_with("snapshots")).unwrap_or(&path);
    // FNV-1a: the same in every build of this program.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = folder.to_string_lossy().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}

/// Name of the file with packed weights of an owner.
pub fn name(owner: &str, key: u128) -> String {
    format!("{owner}-{key:032x}")
}

/// Whether this program gives files such names: 32 hexadecimal digits, after an owner or (older versions)
/// alone.
fn ours(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let key = name.split_once('-').filter(|(owner, _)| owner.len() == 16).map_or(name, |(_, key)| key);
    key.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Notes that a file was used now. Where that is not allowed it counts as used when it was written.
pub fn mark_used(path: &Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Makes room for `bytes` at `path` in a folder that may hold `bytes_max`.
///
/// # Errors
/// The file alone is larger than that; nothing was removed then.
pub fn make_room(dir: &Path, path: &Path, bytes: u64, bytes_max: u64) -> Result<()> {
    if bytes > bytes_max {
        let what = format!("they take {bytes} bytes and the folder may hold {bytes_max}");
        return Err(Error::new(ErrorKind::QuotaExceeded, what));
    }
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = name_of(path).unwrap_or_default();
    let owner = own.split_once('-').map_or("", |(owner, _)| owner);
    let mut kept: Vec<Kept> = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(meta) = entry.metadata() else { continue };
        if !ours(&name) || !meta.is_file() || name.trim_end_matches(".tmp") == own {
            continue;
        }
        let path = entry.path();
        let gone = if name.ends_with(".tmp") {
            // A living process has it locked.
            File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) && std::fs::remove_file(&path).is_ok()
        } else {
            name.starts_with(owner) && std::fs::remove_file(&path).is_ok()
        };
        if !gone {
            kept.push(Kept {
                path,
                bytes: meta.len(),
                used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
    }
    kept.sort_by_key(|file| file.used);
    let mut held: u64 = kept.iter().map(|file| file.bytes).sum();
    for file in kept {
        if held.saturating_add(bytes) > bytes_max && std::fs::remove_file(&file.path).is_ok() {
            held -= file.bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Files of a kilobyte, each used a minute after the one before it.
    fn folder(test: &str, files: &[&str]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("amoeba-eviction-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        for (minute, name) in files.iter().enumerate() {
            std::fs::write(dir.join(name), [0; 1000]).unwrap();
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(60 * minute as u64);
            File::options().write(true).open(dir.join(name)).unwrap().set_modified(used).unwrap();
        }
        dir
    }

    /// Names left, in order; the folder goes.
    fn left(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        std::fs::remove_dir_all(dir).unwrap();
        names
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_only_as_much_as_must() {
        let names = [1, 2, 3, 4].map(|n| name(&format!("{n:016x}"), n));
        let dir = folder("lru", &names.each_ref().map(String::as_str));
        mark_used(&dir.join(&names[0]));
        let new = dir.join(name("f00000000000000f", 9));
        assert!(make_room(&dir, &new, 5000, 4999).unwrap_err().to_string().contains("may hold 4999"));
        make_room(&dir, &new, 1000, 5000).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 4, "all of it fits");
        make_room(&dir, &new, 1001, 4000).unwrap();
        assert_eq!(left(&dir), [names[0].clone(), names[3].clone()]);
    }

    #[test]
    fn older_versions_and_halves_of_killed_runs_go_strangers_stay() {
        let (own, other) = ("a00000000000000a", "b00000000000000b");
        let [old, kept, half, busy] =
            [name(own, 1), name(other, 2), name(other, 3) + ".tmp", name(other, 4) + ".tmp"];
        let dir = folder("owner", &[&old, &kept, &half, &busy, "notes.txt", "00000000-stranger"]);
        let alive = File::open(dir.join(&busy)).unwrap();
        alive.lock().unwrap();
        make_room(&dir, &dir.join(name(own, 5)), 10, u64::MAX).unwrap();
        assert_eq!(left(&dir), ["00000000-stranger".to_owned(), kept, busy, "notes.txt".to_owned()]);
    }

    #[test]
    fn revisions_of_a_downloaded_model_have_one_owner() {
        let of = |path: &str| owner(Path::new(path));
        assert_eq!(of("/no/models--a--b/snapshots/1"), of("/no/models--a--b/snapshots/2"));
        assert_ne!(of("/no/models--a--b/snapshots/1"), of("/no/models--a--c/snapshots/1"));
        assert_ne!(of("/no/a/1"), of("/no/a/2"));
    }
}
