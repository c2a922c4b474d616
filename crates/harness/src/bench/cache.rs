//! The floor of a machine, kept between runs in one small file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use amoeba_checkpoint::read_small;
use serde_json::Value;

use super::floor::Floor;
use super::subject::{Build, Host};

/// Longest file of a floor.
const BYTES_MAX: usize = 1 << 20;

/// Where the floor of this machine is kept.
#[derive(Clone, Debug)]
pub struct FloorCache {
    file: PathBuf,
    key: String,
}

impl FloorCache {
    /// The file for that machine and version in `folder`, which need not exist:
    /// `floor-amd-epyc-2c-0.1.0.json`.
    pub fn new(folder: &Path, host: &Host, build: &Build) -> FloorCache {
        let key = format!("{} {}c {}", host.cpu, host.cores, build.version);
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { ' ' };
        let words: String = key.chars().map(plain).collect();
        let name = words.split_whitespace().collect::<Vec<_>>().join("-");
        FloorCache { file: folder.join(format!("floor-{name}.json")), key }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The stored floor; `None` if there is none.
    ///
    /// # Errors
    /// One line that says why a file that is there cannot be used.
    pub fn load(&self) -> Result<Option<Floor>, String> {
        let fault = |what: &str| format!("{}: {what}", self.file.display());
        let Some(bytes) = read_small(&self.file, BYTES_MAX).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|error| fault(&format!("cannot be read: {error}")))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| fault(&format!("is not JSON: {error}")))?;
        if value.get("key").and_then(|key| key.as_str()) != Some(&self.key) {
            return Err(fault("is of another machine or version"));
        }
        match serde_json::from_value::<Floor>(value) {
            Ok(floor) if floor.possible() => Ok(Some(floor)),
            Ok(_) => Err(fault("has impossible figures")),
            Err(error) => Err(fault(&format!("has missing or odd figures: {error}"))),
        }
    }

    /// Stores a floor, so that a reader sees the old file or the new one, never half of one.
    ///
    /// # Errors
    /// One line that says what could not be written.
    pub fn store(&self, floor: &Floor) -> Result<(), String> {
        let fault = |error: std::io::Error| format!("{}: cannot be written: {error}", self.file.display());
        let mut value = serde_json::to_value(floor).map_err(|error| fault(error.into()))?;
        value["key"] = self.key.clone().into();
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder).map_err(fault)?;
        }
        let half = self.file.with_extension(format!("{}.tmp", std::process::id()));
        let _ = std::fs::remove_file(&half); // of a process of the same number, or a link put there
        let written = File::create_new(&half).and_then(|mut file| writeln!(file, "{value:#}"));
        let written = written.and_then(|()| std::fs::rename(&half, &self.file));
        written.map_err(|error| {
            // What is left of it, if anything; the first error is the one to report.
            let _ = std::fs::remove_file(&half);
            fault(error)
        })
    }
}
