//! What was released reads as before; a stamp tells files apart.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use amoeba_checkpoint::Checkpoint;
use std::path::Path;

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-chat-moe-4bit")
}

#[test]
fn released_bytes_read_as_before() {
    let checkpoint = Checkpoint::open(&fixture()).unwrap();
    let read = || -> Vec<Vec<u8>> {
        checkpoint.names().map(|name| checkpoint.tensor(name).unwrap().bytes.to_vec()).collect()
    };
    let before = read();
    for name in checkpoint.names() {
        let bytes = checkpoint.tensor(name).unwrap().bytes;
        checkpoint.release(&bytes[bytes.len() / 3..]); // of any alignment
        checkpoint.release(bytes);
    }
    assert!(read() == before);
    checkpoint.release_all();
    assert!(read() == before);
    let elsewhere = vec![7_u8; 1 << 20];
    checkpoint.release(&elsewhere);
    checkpoint.release(&[]);
    assert!(elsewhere.iter().all(|&byte| byte == 7), "bytes from elsewhere are left alone");
}

/// A copy of a model, which no other test maps.
fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture().join(file), dir.path().join(file)).unwrap();
    }
    dir
}

#[cfg(target_os = "linux")]
#[test]
fn released_bytes_leave_memory() {
    let dir = copied();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let resident = || {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let map = maps.split_once(dir.path().to_str().unwrap()).unwrap().1;
        let line = map.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap()
    };
    let tensors = || checkpoint.names().map(|name| checkpoint.tensor(name).unwrap().bytes);
    let sum: u64 = tensors().map(|bytes| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()).sum();
    let all = checkpoint.total_bytes() as usize / 1024;
    assert!(sum > 0 && resident() >= all, "{} of {all} kB", resident());
    tensors().for_each(|bytes| checkpoint.release(bytes));
    assert!(resident() <= all / 100, "{} of {all} kB", resident());
}

#[cfg(unix)]
#[test]
fn a_stamp_changes_with_the_file() {
    let dir = copied();
    let weights = dir.path().join("model.safetensors");
    let stamp = || {
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let (stamp, header) = checkpoint.stamps().next().unwrap();
        assert_eq!(header.len(), 8 + u64::from_le_bytes(header[..8].try_into().unwrap()) as usize);
        stamp.unwrap().to_owned()
    };
    let first = stamp();
    assert_eq!(stamp(), first);
    let written = std::fs::metadata(&weights).unwrap().modified().unwrap();
    let bytes = std::fs::read(&weights).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20)); // beyond the grain of the system's clock
    std::fs::write(&weights, bytes).unwrap();
    std::fs::File::options().write(true).open(&weights).unwrap().set_modified(written).unwrap();
    assert_ne!(stamp(), first, "written again, with the old time set");
}
