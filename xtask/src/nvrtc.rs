//! `cargo xtask nvrtc [LIBRARY]`: every CUDA kernel to machine code, without a GPU, by NVRTC.
//!
//! `docs/results/nvrtc.md` holds the registers of each kernel; `ci` fails if it is not what the sources give,
//! or if a kernel that [`SPILLS`] does not list has a stack frame or a spill. The library is given, or
//! fetched once from PyPI into the user's cache folder; `target/nvrtc` keeps the figures of sources that did
//! not change.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{command, files};

/// What the kernels are compiled for.
const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_120"];
/// What pip is asked for.
const PACKAGE: &str = "nvidia-cuda-nvrtc==13.0.88";
/// Kernels that may use local memory: start of the file's name after its number, kernel, reason.
const SPILLS: &[(&str, &str, &str)] = &[
    ("linear_gemm.qwen3-30b-a3b-f32", "gemm", "24 bytes on sm_80 and sm_120: f32 weights in three parts"),
    ("experts_grouped.qwen3-30b-a3b-f32", "grouped_up", "80 bytes: the same"),
    ("experts_grouped.qwen3-30b-a3b-q5g64", "grouped_up", "8 bytes"),
];
/// Where the figures go: a row per kernel, and, not kept in the repository, one per unit that has it.
const DOCUMENT: &str = "docs/results/nvrtc.md";
const DETAILS: &str = "target/nvrtc/units.md";
/// Where figures are kept.
const FOLDER: &str = "target/nvrtc";

/// A kernel of a unit on one architecture.
#[derive(Clone, Debug, PartialEq)]
struct Usage {
    registers: u32,
    local: u32,
    shared: u32,
}

/// By unit and kernel, for each architecture in their order.
type Table = BTreeMap<(String, String), Vec<Usage>>;

/// Compiles everything and writes the document.
pub fn run(root: &Path, library: Option<&str>) -> Result<(), String> {
    let library = match library {
        Some(path) => PathBuf::from(path),
        None => fetch().map_err(|why| format!("nvrtc: {why}"))?,
    };
    let table = compile(root, &library)?;
    std::fs::write(root.join(DOCUMENT), document(&table)).map_err(|e| format!("{DOCUMENT}: {e}"))?;
    println!("{} kernels; written: {DOCUMENT}, {DETAILS}", table.len());
    judge(&table)
}

/// For `ci`: how many kernels were compiled and agree with the document, or why there is no library to do it
/// with. That is a fault where `CI` is set: there, nobody reads what was skipped.
pub fn check(root: &Path) -> Result<Result<usize, String>, String> {
    let library = match fetch() {
        Ok(library) => library,
        Err(why) if is_strict(std::env::var("CI").ok().as_deref()) => return Err(format!("no NVRTC: {why}")),
        Err(why) => return Ok(Err(format!("no NVRTC: {why}"))),
    };
    let table = compile(root, &library)?;
    judge(&table)?;
    if std::fs::read_to_string(root.join(DOCUMENT)).ok().as_deref() != Some(&*document(&table)) {
        return Err(format!(
            "{DOCUMENT} is not what the kernels give now: run `cargo xtask nvrtc` and commit it"
        ));
    }
    Ok(Ok(table.len()))
}

/// Whether a value of `CI` says that this is a build server.
fn is_strict(ci: Option<&str>) -> bool {
    ci.is_some_and(|value| !matches!(value, "" | "0" | "false"))
}

/// The library in the user's cache folder, from PyPI unless it is there.
fn fetch() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folder = cache.ok_or("neither HOME nor XDG_CACHE_HOME is set")?.join("amoeba").join(PACKAGE);
    if let Some(library) = find(&folder) {
        return Ok(library);
    }
    println!("fetching {PACKAGE} (110 MB) from PyPI into {}", folder.display());
    let args = "-m pip install --disable-pip-version-check --no-deps --only-binary :all: \
                --timeout 20 --retries 2 --target";
    let mut pip = Command::new("python3");
    pip.args(args.split(' ')).arg(&folder).arg(PACKAGE).stdout(Stdio::inherit()).stderr(Stdio::piped());
    match pip.output() {
        Ok(output) if output.status.success() => {
            find(&folder).ok_or_else(|| format!("no libnvrtc in what pip put into {}", folder.display()))
        }
        Ok(output) => {
            Err(format!("python3 -m pip: {}", last_error(&String::from_utf8_lossy(&output.stderr))))
        }
        Err(error) => Err(format!("python3 does not start: {error}")),
    }
}

/// The line that says most of what pip wrote.
fn last_error(text: &str) -> &str {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .rfind(|line| line.starts_with("ERROR"))
        .or_else(|| lines().next_back())
        .unwrap_or("it said nothing")
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
    // With the whole workspace: its features are those of the build that the tests use.
    let features = ["--features", "amoeba-kernels/ladder"];
    command::run(root, &[&["build", "--workspace", "--example", "cuda_units"][..], &features].concat())?;
    let example = files::build_folder()?.join("debug/examples/cuda_units");
    output_of(Command::new(example).arg(&folder).current_dir(root))?;
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut script = Command::new("python3");
    script.arg(root.join("scripts/nvrtc.py")).arg("--cache").arg(root.join(FOLDER).join("figures"));
    script.arg(library).arg(ARCHITECTURES.join(",")).args(&files);
    let mut table = Table::new();
    for line in output_of(&mut script)?.lines() {
        let (unit, kernel, usage) = parse(line).ok_or_else(|| format!("scripts/nvrtc.py said `{line}`"))?;
        table.entry((unit, kernel)).or_default().push(usage);
    }
    std::fs::create_dir_all(root.join(FOLDER)).map_err(|e| format!("{FOLDER}: {e}"))?;
    std::fs::write(root.join(DETAILS), details(&table)).map_err(|e| format!("{DETAILS}: {e}"))?;
    Ok(table)
}

/// What a program prints; its errors and its progress pass through.
fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{} failed, as said above", command.get_program().to_string_lossy()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `sm_80 012.linear.model.cu linear 78 0 0 0 128`: architecture, file, kernel, registers, stack, spill
/// stores and loads, shared memory.
fn parse(line: &str) -> Option<(String, String, Usage)> {
    let [_, file, kernel, numbers @ ..] = <[&str; 8]>::try_from(line.split(' ').collect::<Vec<_>>()).ok()?;
    let [registers, stack, stores, loads, shared] = numbers.map(|n| n.parse::<u32>().ok());
    let usage = Usage { registers: registers?, local: stack? + stores? + loads?, shared: shared? };
    Some((file.trim_end_matches(".cu").to_owned(), kernel.to_owned(), usage))
}

/// Whether nothing uses local memory but what may.
fn judge(table: &Table) -> Result<(), String> {
    let listed = |(unit, kernel): &(String, String)| {
        let name = unit.split_once('.').map_or("", |(_, rest)| rest);
        SPILLS.iter().any(|(prefix, spills, _)| name.starts_with(prefix) && kernel == spills)
    };
    let bad = table.iter().filter(|(key, usages)| usages.iter().any(|u| u.local > 0) && !listed(key));
    let bad: Vec<String> =
        bad.map(|((unit, kernel), usages)| format!("  {unit} {kernel}: {usages:?}")).collect();
    if bad.is_empty() { Ok(()) } else { Err(format!("nvrtc: local memory in\n{}", bad.join("\n"))) }
}

/// A row per op and kernel: in how many units it is, and its registers there, least and most.
fn document(table: &Table) -> String {
    let mut kernels: BTreeMap<(&str, &str), Vec<&Vec<Usage>>> = BTreeMap::new();
    for ((unit, kernel), usages) in table {
        let op = unit.split('.').nth(1).unwrap_or(unit);
        kernels.entry((op, kernel)).or_default().push(usages);
    }
    let mut text = format!(
        "# Registers of the CUDA kernels\n\n`cargo xtask nvrtc`, {PACKAGE}: least and most registers of a \
         thread over the units (formats, widths, numbers of rows) that have\nthe kernel, and bytes of \
         static shared memory. `+` bytes of local memory (stack and spills) would follow; CI fails on \
         any.\n`{DETAILS}` has every unit.\n\n\
         | unit | kernel | units | {} | shared |\n|---|---|---:|{}---:|\n",
        ARCHITECTURES.join(" | "),
        "---:|".repeat(ARCHITECTURES.len())
    );
    for ((op, kernel), units) in kernels {
        let on = |i: usize| units.iter().filter_map(move |usages| usages.get(i));
        let columns: Vec<String> = (0..ARCHITECTURES.len()).map(|i| spread(on(i))).collect();
        let shared = on(0).map(|usage| usage.shared).max().unwrap_or(0);
        text += &format!("| {op} | {kernel} | {} | {} | {shared} |\n", units.len(), columns.join(" | "));
    }
    text
}

/// `62–185`, and the most local memory if there is any.
fn spread<'a>(usages: impl Iterator<Item = &'a Usage> + Clone) -> String {
    let registers = usages.clone().map(|usage| usage.registers);
    let (least, most) = (registers.clone().min().unwrap_or(0), registers.max().unwrap_or(0));
    let local = usages.map(|usage| usage.local).max().unwrap_or(0);
    let range = if least == most { most.to_string() } else { format!("{least}–{most}") };
    if local > 0 { format!("{range} + {local}") } else { range }
}

/// A row per unit and kernel.
fn details(table: &Table) -> String {
    let mut text =
        format!("| unit | kernel | {} |\n|---|---|{}\n", ARCHITECTURES.join(" | "), "---:|".repeat(3));
    for ((unit, kernel), usages) in table {
        let columns: Vec<String> = usages.iter().map(|usage| spread([usage].into_iter())).collect();
        text += &format!("| {unit} | {kernel} | {} |\n", columns.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_local_memory_is_a_fault() {
        let (unit, kernel, usage) = parse("sm_80 012.linear.model.cu linear 78 0 0 0 128").unwrap();
        assert_eq!((unit.as_str(), kernel.as_str()), ("012.linear.model", "linear"));
        assert_eq!(usage, Usage { registers: 78, local: 0, shared: 128 });
        let wider = vec![Usage { registers: 96, ..usage.clone() }];
        let mut table =
            Table::from([((unit, kernel), vec![usage]), (("013.linear.m".into(), "linear".into()), wider)]);
        assert!(judge(&table).is_ok());
        assert!(document(&table).contains("| linear | linear | 2 | 78–96 | "), "{}", document(&table));
        let (unit, kernel, usage) = parse("sm_80 013.x.y.cu k 255 8 16 16 0").unwrap();
        table.insert((unit, kernel), vec![usage]);
        assert!(judge(&table).unwrap_err().contains("013.x.y k"));
        assert!(document(&table).contains("| 255 + 40 |"));
        assert_eq!(parse("error"), None);
    }

    #[test]
    fn a_library_may_be_missing_only_where_someone_reads_it() {
        assert!(is_strict(Some("true")) && is_strict(Some("1")));
        assert!(!is_strict(None) && !is_strict(Some("")) && !is_strict(Some("false")));
        assert_eq!(
            last_error("WARNING: Retrying\nERROR: No matching distribution\n\nnotice\n"),
            "ERROR: No matching distribution"
        );
        assert_eq!(
            last_error("/usr/bin/python3: No module named pip\n"),
            "/usr/bin/python3: No module named pip"
        );
    }
}
