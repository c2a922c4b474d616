//! `cargo xtask device-pack DIR [--nvrtc VENV] [--llama FILE]`: a folder to copy to a machine that has a GPU
//! and no Rust. It holds the program, the kernels' tests, the models with recorded results, and
//! `device_smoke.sh`, which runs everything there; NVRTC of a Python environment if one is named; and what
//! runs llama.cpp for comparison, from the sources of llama-cpp-python (built there) or with a `llama-bench`
//! that was built elsewhere.
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most bytes of a folder: what can be copied in a minute anywhere.
const BYTES_MAX: u64 = 60_000_000;
/// What `verify` reads of a model.
const MODEL_FILES: [&str; 3] = ["config.json", "expected.json", "expected.safetensors"];
/// Where NVIDIA's package lies in an environment, below `lib/python3.X/site-packages`.
const NVRTC: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];
/// What compares with llama.cpp.
const PEERS: [&str; 5] = ["gpu.sh", "gpu.py", "compare.py", "gguf_synth.py", "machine.py"];
const PROGRAM: [&str; 4] = ["build", "--release", "--package", "amoeba"];
/// The kernels' cases; `AMOEBA_OPS_DEVICE` has them run on a device.
const OPS: [&str; 7] =
    ["test", "--release", "--package", "amoeba-kernels", "--test", "cuda_emulation", "--no-run"];

/// What may be packed besides.
#[derive(Debug, Default, PartialEq)]
pub struct Extras<'a> {
    nvrtc: Option<&'a Path>,
    llama: Option<&'a Path>,
}

impl<'a> Extras<'a> {
    /// From pairs of flag and value; `None` if there are others.
    pub fn parse(args: &[&'a str]) -> Option<Extras<'a>> {
        let mut extras = Extras::default();
        for pair in args.chunks(2) {
            match *pair {
                ["--nvrtc", path] => extras.nvrtc = Some(Path::new(path)),
                ["--llama", path] => extras.llama = Some(Path::new(path)),
                _ => return None,
            }
        }
        Some(extras)
    }
}

/// Makes the folder `dir`, which must not exist.
pub fn run(root: &Path, dir: &Path, extras: &Extras<'_>) -> Result<(), String> {
    fs::create_dir(dir).map_err(|error| format!("device-pack: cannot make {}: {error}", dir.display()))?;
    pack_program(&build(root, &PROGRAM)?, &dir.join("amoeba"))?;
    pack_program(&build(root, &OPS)?, &dir.join("ops"))?;
    archive(dir, "programs", dir, &["amoeba", "ops"])?;
    for name in ["amoeba", "ops"] {
        fs::remove_file(dir.join(name)).map_err(|error| format!("device-pack: {name}: {error}"))?;
    }
    copy(&root.join("scripts/device_smoke.sh"), &dir.join("device_smoke.sh"))?;
    fs::write(dir.join("pack.txt"), commit(root)).map_err(|error| format!("device-pack: {error}"))?;
    let folders =
        fs::read_dir(root.join("fixtures")).map_err(|error| format!("device-pack: fixtures: {error}"))?;
    let models =
        folders.flatten().map(|entry| entry.path()).filter(|path| path.join("expected.json").exists());
    let mut count = 0;
    for model in models {
        pack_model(&model, &dir.join("fixtures").join(model.file_name().unwrap_or_default()))?;
        count += 1;
    }
    if let Some(environment) = extras.nvrtc {
        pack_nvrtc(environment, dir)?;
    }
    if let Some(file) = extras.llama {
        pack_peers(root, file, &dir.join("peers"))?;
    }
    let bytes = size(dir);
    println!("{}: {count} models, {:.1} MB; run ./device_smoke.sh there", dir.display(), megabytes(bytes));
    if bytes > BYTES_MAX {
        let most = megabytes(BYTES_MAX);
        return Err(format!("device-pack: {:.1} MB, at most {most:.0} MB may be copied", megabytes(bytes)));
    }
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// `NAME.tar.xz` of some files of a folder.
fn archive<S: AsRef<OsStr>>(dir: &Path, name: &str, from: &Path, files: &[S]) -> Result<(), String> {
    let to = dir.join(format!("{name}.tar.xz"));
    let status = Command::new("tar").arg("-cJf").arg(to).arg("-C").arg(from).args(files).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("device-pack: tar could not pack {name}")),
    }
}

/// Builds; where the executable is.
fn build(root: &Path, args: &[&str]) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).arg("--message-format=json-render-diagnostics").current_dir(root);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("device-pack: cargo did not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("device-pack: cargo ended with {}", output.status));
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| format!("device-pack: `cargo {}` names no executable", args.join(" ")))
}

/// The last executable that cargo's messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    let named = messages.lines().filter_map(|line| line.split_once("\"executable\":\""));
    named.filter_map(|(_, rest)| rest.split_once('"')).next_back().map(|(path, _)| PathBuf::from(path))
}

/// The commit of the sources, with `+` if they differ from it.
fn commit(root: &Path) -> String {
    let args = ["describe", "--always", "--dirty=+", "--exclude=*"];
    let output = Command::new("git").args(args).current_dir(root).output();
    output.map_or_else(|_| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    to.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| format!("device-pack: {error}"))?;
    fs::copy(from, to).map(|_| ()).map_err(|error| format!("device-pack: {}: {error}", from.display()))
}

fn pack_program(from: &Path, to: &Path) -> Result<(), String> {
    copy(from, to)?;
    // Smaller without names of functions; a system without `strip` packs it as it is.
    let _ = Command::new("strip").arg(to).status();
    Ok(())
}

/// The scripts, and the peer: its sources, cut to what is built, or a program.
fn pack_peers(root: &Path, file: &Path, to: &Path) -> Result<(), String> {
    for name in PEERS {
        copy(&root.join("bench/peers").join(name), &to.join(name))?;
    }
    if !file.to_string_lossy().ends_with(".tar.gz") {
        return pack_program(file, &to.join("llama-bench"));
    }
    let script = to.join("gpu.sh");
    match Command::new(&script).arg("--trim").arg(file).arg(to.join("llama.tar.xz")).status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("device-pack: {} is not a source distribution of llama-cpp-python", file.display())),
    }
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
    archive(dir, "nvrtc", &folder, &names)
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
    fn flags_are_read_in_pairs() {
        let path = |text| Some(Path::new(text));
        assert_eq!(Extras::parse(&[]), Some(Extras::default()));
        let both = Extras { nvrtc: path("v"), llama: path("l.tar.gz") };
        assert_eq!(Extras::parse(&["--llama", "l.tar.gz", "--nvrtc", "v"]), Some(both));
        assert_eq!(Extras::parse(&["--nvrtc"]), None);
        assert_eq!(Extras::parse(&["v", "w"]), None);
    }

    #[test]
    fn the_executable_is_in_cargos_messages() {
        let library = r#"{"reason":"compiler-artifact","executable":null}"#;
        let program = r#"{"reason":"compiler-artifact","executable":"/t/release/amoeba","fresh":true}"#;
        assert_eq!(
            executable(&format!("{library}\n{program}\n{library}\n")),
            Some(PathBuf::from("/t/release/amoeba"))
        );
        assert_eq!(executable(library), None);
    }

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
