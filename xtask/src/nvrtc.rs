//! `cargo xtask nvrtc [LIBRARY]`: every CUDA kernel to machine code, without a GPU, by NVRTC.
//!
//! Records registers of each kernel in `docs/results/nvrtc.md`; a stack frame or a spill fails unless [`SPILLS`] lists it. The
//! library is given, or fetched from PyPI into `target/`.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the kernels are compiled for.
const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_120"];
/// What pip is asked for.
const PACKAGE: &str = "nvidia-cuda-nvrtc==13.0.88";
/// Kernels that may use local memory: start of the file's name behind its number, kernel, reason.
const SPILLS: &[(&str, &str, &str)] = &[];
/// Where the figures go.
const DOCUMENT: &str = "docs/results/nvrtc.md";

/// A kernel of a unit on one architecture.
#[derive(Clone, Debug, PartialEq)]
struct Usage {
    registers: u32,
    local: u32,
    shared: u32,
}

/// By unit and kernel, for each architecture.
type Table = BTreeMap<(String, String), Vec<Usage>>;

/// Compiles everything and writes the document.
pub fn run(root: &Path, library: Option<&str>) -> Result<(), String> {
    let library = match library {
        Some(path) => PathBuf::from(path),
        None => fetch(root)?,
    };
    let table = compile(root, &library)?;
    let path = root.join(DOCUMENT);
    std::fs::create_dir_all(path.parent().unwrap_or(root)).map_err(|e| format!("{DOCUMENT}: {e}"))?;
    std::fs::write(&path, document(&table)).map_err(|e| format!("{DOCUMENT}: {e}"))?;
    println!("{} kernels, {DOCUMENT} written", table.len());
    judge(&table)
}

/// For `ci`: the same without the document; `None` if there is no library to be had.
pub fn check(root: &Path) -> Result<Option<usize>, String> {
    let Ok(library) = fetch(root) else { return Ok(None) };
    let table = compile(root, &library)?;
    judge(&table).map(|()| Some(table.len()))
}

/// The library in `target/nvrtc`, from PyPI unless it is there.
fn fetch(root: &Path) -> Result<PathBuf, String> {
    let folder = root.join("target/nvrtc");
    if let Some(library) = find(&folder) {
        return Ok(library);
    }
    let target = folder.to_string_lossy().into_owned();
    let args =
        ["-m", "pip", "install", "--quiet", "--no-deps", "--timeout", "10", "--retries", "1", "--target"];
    let output = Command::new("python3").args(args).args([&target, PACKAGE]).output();
    match output {
        Ok(output) if output.status.success() => {
            find(&folder).ok_or_else(|| format!("no libnvrtc in what pip put into {target}"))
        }
        Ok(output) => Err(format!("pip: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("python3: {error}")),
    }
}

/// The library below a folder: `libnvrtc.so` and a version.
fn find(folder: &Path) -> Option<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    let is_library =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("libnvrtc.so"));
    paths.iter().find(|path| is_library(path)).cloned().or_else(|| paths.iter().find_map(|path| find(path)))
}

fn compile(root: &Path, library: &Path) -> Result<Table, String> {
    let folder = root.join("target/nvrtc-units");
    let _ = std::fs::remove_dir_all(&folder);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut example = Command::new(cargo);
    example.args(["run", "--quiet", "-p", "amoeba-kernels", "--example", "cuda_units", "--"]).arg(&folder);
    output_of(example.current_dir(root))?;
    let files = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = files.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut table = Table::new();
    for architecture in ARCHITECTURES {
        let mut script = Command::new("python3");
        script.arg(root.join("scripts/nvrtc.py")).arg(library).arg(architecture).args(&files);
        for line in output_of(&mut script)?.lines() {
            let (unit, kernel, usage) =
                parse(line).ok_or_else(|| format!("scripts/nvrtc.py said `{line}`"))?;
            table.entry((unit, kernel)).or_default().push(usage);
        }
    }
    Ok(table)
}

fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        let program = command.get_program().to_string_lossy();
        return Err(format!("{program} failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `012.linear.model.cu linear 78 0 0 0 128`: file, kernel, registers, stack, spill stores and loads, shared memory.
fn parse(line: &str) -> Option<(String, String, Usage)> {
    let [file, kernel, numbers @ ..] =
        line.split(' ').collect::<Vec<_>>().try_into().ok().map(|w: [&str; 7]| w)?;
    let [registers, stack, stores, loads, shared] = numbers.map(|n| n.parse::<u32>().ok());
    let usage = Usage { registers: registers?, local: stack? + stores? + loads?, shared: shared? };
    Some((file.trim_end_matches(".cu").to_owned(), kernel.to_owned(), usage))
}

/// Whether nothing uses local memory but what may.
fn judge(table: &Table) -> Result<(), String> {
    let listed = |(unit, kernel): &(String, String)| {
        let behind = unit.split_once('.').map_or("", |(_, rest)| rest);
        SPILLS.iter().any(|(prefix, name, _)| behind.starts_with(prefix) && kernel == name)
    };
    let bad = table.iter().filter(|(key, usages)| usages.iter().any(|u| u.local > 0) && !listed(key));
    let bad: Vec<String> =
        bad.map(|((unit, kernel), usages)| format!("  {unit} {kernel}: {usages:?}")).collect();
    if bad.is_empty() { Ok(()) } else { Err(format!("nvrtc: local memory in\n{}", bad.join("\n"))) }
}

fn document(table: &Table) -> String {
    let mut text = format!(
        "# Registers of the CUDA kernels\n\n`cargo xtask nvrtc`, {PACKAGE}. Units are numbered; behind the number stand op and the \
         first model that needs it. Bytes of local memory\n(stack and spills) follow a `+`; there should be none.\n\n\
         | unit | kernel | {} | static shared |\n|---|---|{}---:|\n",
        ARCHITECTURES.join(" | "),
        "---:|".repeat(ARCHITECTURES.len())
    );
    for ((unit, kernel), usages) in table {
        let of = |u: &Usage| {
            if u.local > 0 { format!("{} + {}", u.registers, u.local) } else { u.registers.to_string() }
        };
        let registers: Vec<String> = usages.iter().map(of).collect();
        let shared = usages.first().map_or(0, |u| u.shared);
        text += &format!("| {unit} | {kernel} | {} | {shared} |\n", registers.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_local_memory_is_a_fault() {
        let (unit, kernel, usage) = parse("012.linear.model.cu linear 78 0 0 0 128").unwrap();
        assert_eq!((unit.as_str(), kernel.as_str()), ("012.linear.model", "linear"));
        assert_eq!(usage, Usage { registers: 78, local: 0, shared: 128 });
        let mut table = Table::from([((unit, kernel), vec![usage])]);
        assert!(judge(&table).is_ok() && document(&table).contains("| 78 | 128 |"));
        let (unit, kernel, usage) = parse("013.x.y.cu k 255 8 16 16 0").unwrap();
        table.insert((unit, kernel), vec![usage]);
        assert!(judge(&table).unwrap_err().contains("013.x.y k"));
        assert_eq!(parse("error"), None);
    }
}
