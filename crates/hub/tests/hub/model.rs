//! The model that the fake Hub serves, a hub that asks it, and a progress that remembers.
use amoeba_hub::{Hub, Progress, PullPlan};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A repository: its files, as (name, bytes, whether it is stored as a large file).
#[derive(Clone)]
pub struct Model {
    pub files: Vec<(String, Vec<u8>, bool)>,
    /// Replaces the listing.
    pub listing: Option<String>,
    /// Leaves the digests out of the listing.
    pub no_digests: bool,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

impl Model {
    pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    pub const WEIGHTS: &str = "model.safetensors";

    /// A configuration, weights of a megabyte, and files that nobody wants.
    pub fn small() -> Self {
        let weights: Vec<u8> =
            (0..1_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let file = |name: &str, bytes: &[u8], large| (name.to_owned(), bytes.to_vec(), large);
        let files = vec![
            file("README.md", b"# hello", false),
            file("config.json", b"{\"model_type\": \"qwen3_moe\"}", false),
            file("tokenizer.json", b"{}", true),
            file("chat_template.jinja", b"{{ x }}", false),
            file("pytorch_model.bin", b"pickle", true),
            file("sub/config.json", b"{}", false),
            file(Self::WEIGHTS, &weights, true),
        ];
        Model { files, listing: None, no_digests: false }
    }

    pub fn weights(&self) -> &[u8] {
        &self.files.iter().find(|f| f.0 == Self::WEIGHTS).unwrap().1
    }

    /// The body for a request's path, if there is such a thing.
    pub fn body(&self, path: &str) -> Option<Vec<u8>> {
        if path.starts_with("/api/models/") {
            return Some(self.listing.clone().unwrap_or_else(|| self.list()).into_bytes());
        }
        let (_, file) = path.split_once("/resolve/")?.1.split_once('/')?;
        self.files.iter().find(|f| f.0 == file).map(|f| f.1.clone())
    }

    fn list(&self) -> String {
        let entry = |(name, bytes, large): &(String, Vec<u8>, bool)| {
            let mut entry = serde_json::json!({"rfilename": name, "size": bytes.len()});
            if !self.no_digests {
                let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
                entry["blobId"] = hex(&sha1::Sha1::digest(blob)).into();
            }
            if *large && !self.no_digests {
                entry["lfs"] =
                    serde_json::json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130});
            }
            entry
        };
        let siblings: Vec<_> = self.files.iter().map(entry).collect();
        serde_json::json!({"sha": Self::COMMIT, "siblings": siblings}).to_string()
    }
}

/// A hub that asks `url` and does not wait long.
pub fn hub(cache: &Path, url: &str) -> Hub {
    let ms = Duration::from_millis;
    Hub::new(cache).with_endpoint(url).with_retries(3, ms(5), ms(1500), ms(2000))
}

/// Where the unfinished weights of `o/m` are kept.
pub fn part_of(cache: &Path, model: &Model) -> PathBuf {
    cache.join("models--o--m/blobs").join(format!("{}.amoeba-part", sha256(model.weights())))
}

/// Leaves bytes as an earlier, ended run would have.
pub fn put_part(cache: &Path, model: &Model, bytes: &[u8]) {
    let part = part_of(cache, model);
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(part, bytes).unwrap();
}

/// What a pull reported.
#[derive(Default)]
pub struct Seen {
    pub plan: Option<PullPlan>,
    pub bytes: Vec<(String, u64, u64)>,
    pub notes: Vec<String>,
}

impl Progress for Seen {
    fn plan(&mut self, plan: &PullPlan) {
        self.plan = Some(plan.clone());
    }

    fn bytes(&mut self, file: &str, done: u64, total: u64) {
        self.bytes.push((file.to_owned(), done, total));
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}
