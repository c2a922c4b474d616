//! `cargo xtask device-pack DIR [VENV]`: a folder to copy to a machine that has a GPU and no Rust. It holds the program, the
//! models with recorded results, and `device_smoke.sh`, which runs everything there; NVRTC too if a Python environment that
//! has it is named.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most bytes of a folder: what can be copied in a minute anywhere.
const BYTES_MAX: u64 = 60 << 20;
/// What `verify` reads of a model.
const MODEL_FILES: [&str; 3] = ["config.json", "expected.json", "expected.safetensors"];
/// Where NVIDIA's package lies in an environment, below `lib/python3.X/site-packages`.
const NVRTC: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

/// Makes the folder `dir`, which must not exist.
pub fn run(root: &Path, dir: &Path, environment: Option<&Path>) -> Result<(), String> {
    fs::create_dir(dir).map_err(|error| format!("device-pack: cannot make {}: {error}", dir.display()))?;
    let program = build(root)?;
    copy(&program, &dir.join("amoeba"))?;
    // Smaller without names of functions; a system without `strip` packs it as it is.
    let _ = Command::new("strip").arg(dir.join("amoeba")).status();
    copy(&root.join("scripts/device_smoke.sh"), &dir.join("device_smoke.sh"))?;
    let folders =
        fs::read_dir(root.join("fixtures")).map_err(|error| format!("device-pack: fixtures: {error}"))?;
    let models =
        folders.flatten().map(|entry| entry.path()).filter(|path| path.join("expected.json").exists());
    let mut count = 0;
    for model in models {
        pack_model(&model, &dir.join("fixtures").join(model.file_name().unwrap_or_default()))?;
        count += 1;
    }
    if let Some(environment) = environment {
        pack_nvrtc(environment, dir)?;
    }
    let bytes = size(dir);
    println!("{}: {count} models, {:.1} MiB; run ./device_smoke.sh there", dir.display(), mebibytes(bytes));
    if bytes > BYTES_MAX {
        let most = mebibytes(BYTES_MAX);
        return Err(format!("device-pack: {:.1} MiB, at most {most:.0} MiB may be copied", mebibytes(bytes)));
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The release build; where it is.
fn build(root: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["build", "--release", "--package", "amoeba"];
    match Command::new(cargo).args(args).current_dir(root).status() {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("device-pack: cargo ended with {status}")),
        Err(error) => return Err(format!("device-pack: cargo did not start: {error}")),
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/amoeba"))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    to.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| format!("device-pack: {error}"))?;
    fs::copy(from, to).map(|_| ()).map_err(|error| format!("device-pack: {}: {error}", from.display()))
}

fn pack_model(from: &Path, to: &Path) -> Result<(), String> {
    let entries = fs::read_dir(from).map_err(|error| format!("device-pack: {}: {error}", from.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if MODEL_FILES.contains(&&*name) || name.starts_with("model") {
            copy(&path, &to.join(name))?;
        }
    }
    Ok(())
}

/// NVRTC of a Python environment, compressed: it is 110 MB as it is.
fn pack_nvrtc(environment: &Path, dir: &Path) -> Result<(), String> {
    let pythons =
        fs::read_dir(environment.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = pythons.flat_map(|python| NVRTC.map(|package| python.join("site-packages").join(package)));
    let library = |folder: &Path, name: &str| {
        let entries = fs::read_dir(folder).ok()?.flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.find(|found| found.starts_with(name))
    };
    let names =
        |folder: &Path| Some([library(folder, "libnvrtc.so.")?, library(folder, "libnvrtc-builtins.so.")?]);
    let found = folders.into_iter().find_map(|folder| Some((names(&folder)?, folder)));
    let (names, folder) =
        found.ok_or_else(|| format!("device-pack: {} has no NVRTC", environment.display()))?;
    let archive = dir.join("nvrtc.tar.xz");
    let status = Command::new("tar").arg("-cJf").arg(&archive).arg("-C").arg(&folder).args(&names).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err("device-pack: tar could not pack NVRTC".to_owned()),
    }
}

fn size(path: &Path) -> u64 {
    let inside = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(inside).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_packed_without_what_verify_does_not_read() {
        let model = crate::files::root().join("fixtures/qwen3_moe-q4g64-sharded");
        let to = std::env::temp_dir().join(format!("amoeba-pack-{}", std::process::id()));
        pack_model(&model, &to).unwrap();
        let mut names: Vec<String> = fs::read_dir(&to)
            .unwrap()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert!(names.iter().any(|name| name == "model.safetensors.index.json"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("tokenizer")), "{names:?}");
        assert!(MODEL_FILES.iter().all(|file| names.iter().any(|name| name == file)), "{names:?}");
        assert!(size(&to) > 100_000);
        fs::remove_dir_all(to).unwrap();
    }
}
