//! What a load holds in memory at most, and what the repack cache does in good and in bad days.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use amoeba_backend::Row;
use amoeba_engine::{LoadOptions, RepackCache, load_executable, open};
use amoeba_harness::synth;

/// A folder that is not there yet.
fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    dir
}

thread_local! {
    static NOTICES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn notices() -> Vec<String> {
    NOTICES.with(RefCell::take)
}

fn cache(dir: PathBuf) -> Option<RepackCache> {
    Some(RepackCache { dir, bytes_max: 1 << 40 })
}

/// Loads, checks what progress was heard, and gives the bits of the logits of two steps.
fn logits(model: &Path, repack_cache: Option<RepackCache>) -> Vec<u32> {
    let notice = |text: &str| NOTICES.with(|notices| notices.borrow_mut().push(text.to_owned()));
    let options = LoadOptions { threads: Some(3), repack_cache, notice, ..LoadOptions::default() };
    let mut heard = Vec::new();
    let mut executable =
        load_executable(&open(model).unwrap(), &options, &mut |done, all| heard.push((done, all))).unwrap();
    assert!(heard.iter().all(|(done, all)| done <= all), "{heard:?}");
    assert_eq!(heard.last().map(|(done, all)| done == all), Some(true), "{heard:?}");
    let mut bits = Vec::new();
    for position in 0..2 {
        executable.step(&[Row { token: 7, slot: 0, position, logits: true }], None).unwrap();
        bits.extend(executable.logits(0).iter().map(|x| x.to_bits()));
    }
    bits
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Whether the one file was not touched by `f`.
#[cfg(unix)]
fn untouched(file: &Path, f: impl FnOnce()) -> bool {
    use std::os::unix::fs::MetadataExt;
    // A file that is written is another one; the time is that of its last use.
    let state = || fs::metadata(file).map(|meta| (meta.ino(), meta.len())).unwrap();
    let before = state();
    f();
    before == state()
}

#[cfg(unix)]
#[test]
fn kept_weights_are_the_same_and_damaged_ones_are_never_used() {
    let (model, dir) = (fresh("repack-model"), fresh("repack-cache"));
    synth("tiny:q3g32", &model, &mut |_, _| {}).unwrap();
    let expected = logits(&model, None);
    assert_eq!(logits(&model, cache(dir.clone())), expected);
    let kept = files(&dir);
    assert_eq!((kept.len(), notices()), (1, vec![]));
    let good = fs::read(&kept[0]).unwrap();
    let warm = untouched(&kept[0], || assert_eq!(logits(&model, cache(dir.clone())), expected));
    assert!(warm && notices().is_empty(), "a good file is read, not written");

    let flips = [0, 8, 12, 16, 32, 40, 48, 56, 4096, good.len() / 2, good.len() - 1];
    let flip = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        (format!("byte {at} flipped"), bad)
    };
    let mut swapped = good.clone();
    swapped[4096..4096 + 128].rotate_left(64);
    let lengths = [(0, "empty"), (20, "in the header"), (good.len() - 1, "at the end")];
    let cut = lengths.map(|(len, what)| (format!("cut {what}"), good[..len].to_vec()));
    let longer = [("longer".to_owned(), [&good[..], &[0]].concat()), ("swapped".to_owned(), swapped)];
    for (what, bad) in flips.map(flip).into_iter().chain(cut).chain(longer) {
        fs::write(&kept[0], bad).unwrap();
        assert_eq!(logits(&model, cache(dir.clone())), expected, "{what}");
        let notices = notices();
        assert!(notices.len() == 1 && notices[0].contains("the file is damaged"), "{what}: {notices:?}");
        assert_eq!(files(&dir), kept, "{what}");
        assert!(fs::read(&kept[0]).unwrap() == good, "{what}: packed again and kept");
    }
}

#[cfg(unix)]
#[test]
fn a_file_is_for_the_weights_it_was_made_of() {
    let (model, dir) = (fresh("repack-changed-model"), fresh("repack-changed-cache"));
    synth("tiny:q4g64", &model, &mut |_, _| {}).unwrap();
    let first = logits(&model, cache(dir.clone()));
    // The same length, header and time of writing: only the system's own times tell.
    let path = model.join("model.safetensors");
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().step_by(2).for_each(|byte| *byte ^= 1);
    std::thread::sleep(std::time::Duration::from_millis(20)); // beyond the grain of the system's clock
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
    let second = logits(&model, cache(dir.clone()));
    assert_ne!(first, second);
    assert_eq!(second, logits(&model, None));
    assert_eq!((files(&dir).len(), notices()), (1, vec![]), "the older version is gone");
    let small = RepackCache { bytes_max: 10_000, ..cache(dir.clone()).unwrap() };
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(second, logits(&model, Some(small)));
    let heard = notices();
    assert!(heard.len() == 1 && heard[0].contains("the folder may hold 10000"), "{heard:?}");
}

#[test]
fn a_model_loads_where_nothing_can_be_kept() {
    let (model, dir) = (fresh("repack-full-model"), fresh("repack-full-cache"));
    synth("tiny:q8g128", &model, &mut |_, _| {}).unwrap();
    let expected = logits(&model, None);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    assert_eq!(logits(&model, cache(dir.join("file/packed"))), expected);
    let heard = notices();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(
        heard.last().is_some_and(|text| text.contains("not kept in") && text.contains("file/packed")),
        "{heard:?}"
    );
}

/// Peaks of this process and of loads in processes of their own.
#[cfg(target_os = "linux")]
mod memory {
    use super::*;
    use std::process::Command;

    const CHILD: &str = "AMOEBA_LOADING_TEST_CHILD";
    /// In addition to the weights: the program, its stacks, index and plan, the caches and buffers that a
    /// step writes, and a job of packing for each thread.
    const PROCESS_BYTES: u64 = 24 << 20;

    /// Not a test of its own: started by the other as a process that loads and runs one step.
    #[test]
    fn child() {
        let Ok(arguments) = std::env::var(CHILD) else { return };
        let (model, dir) = arguments.split_once(' ').unwrap();
        let repack_cache = Some(dir).filter(|dir| !dir.is_empty()).and_then(|dir| cache(dir.into()));
        let options = LoadOptions { threads: Some(2), repack_cache, ..LoadOptions::default() };
        let mut executable =
            load_executable(&open(Path::new(model)).unwrap(), &options, &mut |_, _| {}).unwrap();
        executable.step(&[Row { token: 7, slot: 0, position: 0, logits: true }], None).unwrap();
        assert_eq!(notices(), Vec::<String>::new());
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        println!("peak{}", peak.trim().strip_suffix(" kB").unwrap());
    }

    /// The most memory that a process held which loaded the model.
    fn peak(model: &Path, dir: Option<&Path>) -> u64 {
        let dir = dir.map_or_else(String::new, |dir| dir.display().to_string());
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["memory::child", "--exact", "--nocapture"])
            .env(CHILD, format!("{} {dir}", model.display()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let peak =
            text.lines().find_map(|line| line.split_once("peak")?.1.split(' ').next()?.parse::<u64>().ok());
        peak.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))) * 1024
    }

    #[test]
    fn a_load_holds_the_weights_once() {
        let (model, dir) = (fresh("loading-memory-model"), fresh("loading-memory-cache"));
        synth("small:3", &model, &mut |_, _| {}).unwrap();
        let bytes = open(&model).unwrap().total_bytes();
        assert!(bytes > 200_000_000, "{bytes} bytes");
        let bound = bytes * 115 / 100 + PROCESS_BYTES;
        let loads = [("packing", None), ("packing and keeping", Some(&dir)), ("from the cache", Some(&dir))];
        for (what, dir) in loads {
            let peak = peak(&model, dir.map(PathBuf::as_path));
            println!("{what}: {peak} bytes for {bytes} of weights");
            assert!(peak <= bound, "{what}: {peak} bytes for {bytes} of weights, bound {bound}");
        }
        fs::remove_dir_all(&model).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
