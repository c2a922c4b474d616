//! Compiled kernels kept in files, so that only the first load compiles. A file is `magic, SHA-256 of the
//! code, code`; its name is the hash of all that the code depends on. Whatever does not fit is compiled
//! again, and the folder may be deleted at any time.

use std::fs;
use std::io::{Error, Read, Result, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use amoeba_backend::KernelCache;
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"AMOEBACU";
const HEAD: usize = MAGIC.len() + 32;

/// Name of what some texts and bytes make together.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // With lengths, so that no two lists run together to the same text.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()[..20].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of a folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct Kept(pub KernelCache);

impl Kept {
    /// Code kept under that key; `None` if there is none, or none that is whole.
    pub fn load(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut file = fs::File::open(&path).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let (head, code) = bytes.split_at_checked(HEAD)?;
        if head[..MAGIC.len()] != *MAGIC || head[MAGIC.len()..] != *Sha256::digest(code) {
            let _ = fs::remove_file(&path); // if that fails, so does storing, which says why
            return None;
        }
        // When it was used last; only the order of eviction depends on it.
        let _ = file.set_modified(SystemTime::now());
        Some(code.to_vec())
    }

    /// Keeps code: written aside, then renamed, so that there is never a file that is not whole.
    ///
    /// # Errors
    /// The system refuses; nothing but time is lost.
    pub fn store(&self, key: &str, code: &[u8]) -> Result<()> {
        fs::create_dir_all(&self.0.dir)?;
        self.make_room((HEAD + code.len()) as u64)?;
        let aside = self.0.dir.join(format!("{key}.{}.tmp", std::process::id()));
        let written = fs::File::create(&aside).and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)
        });
        let written = written.and_then(|()| fs::rename(&aside, self.path(key)));
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.dir.join(format!("{key}.cubin"))
    }

    /// Removes what was not used for longest until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> Result<()> {
        if bytes > self.0.bytes_max {
            return Err(Error::other(format!(
                "a kernel of {bytes} bytes exceeds the limit of {}",
                self.0.bytes_max
            )));
        }
        let mut kept: Vec<(SystemTime, u64, PathBuf)> =
            fs::read_dir(&self.0.dir)?.flatten().filter_map(|entry| listed(&entry.path())).collect();
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        kept.sort();
        for (_, size, path) in kept {
            if total + bytes <= self.0.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }
}

fn listed(path: &Path) -> Option<(SystemTime, u64, PathBuf)> {
    let ours = path.extension().is_some_and(|extension| extension == "cubin" || extension == "tmp");
    let meta = fs::metadata(path).ok().filter(|meta| ours && meta.is_file())?;
    Some((meta.modified().ok()?, meta.len(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cache(name: &str, bytes_max: u64) -> Kept {
        let dir = std::env::temp_dir().join(format!("amoeba-kernels-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Kept(KernelCache { dir, bytes_max })
    }

    #[test]
    fn code_comes_back_whole_or_not_at_all() {
        let cache = cache("whole", 1 << 20);
        let key = key(&["source", "sm_90a"]);
        assert_eq!(cache.load(&key), None);
        cache.store(&key, b"code").unwrap();
        assert_eq!(cache.load(&key).unwrap(), b"code");
        for damage in [&b""[..], b"AMOEBACU", &[0; 60]] {
            fs::write(cache.path(&key), damage).unwrap();
            assert_eq!(cache.load(&key), None, "{damage:?}");
        }
        assert!(!cache.path(&key).exists(), "what is damaged goes");
        cache.store(&key, b"again").unwrap();
        assert_eq!(cache.load(&key).unwrap(), b"again");
        fs::remove_dir_all(&cache.0.dir).unwrap();
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let cache = cache("room", 3 * 100);
        for (age, name) in [(30, "a"), (20, "b"), (10, "c")] {
            cache.store(name, &[0; 100 - HEAD]).unwrap();
            let then = SystemTime::now() - Duration::from_secs(age);
            fs::File::open(cache.path(name)).unwrap().set_modified(then).unwrap();
        }
        cache.load("a").unwrap();
        cache.store("d", &[0; 100 - HEAD]).unwrap();
        assert_eq!(["a", "b", "c", "d"].map(|name| cache.load(name).is_some()), [true, false, true, true]);
        assert!(cache.store("e", &[0; 400]).is_err());
        fs::remove_dir_all(&cache.0.dir).unwrap();
    }

    #[test]
    fn keys_do_not_run_together() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]).len(), 40);
    }
}
