//! What opening a folder allocates stays below twice the files plus 64 MiB, whatever they claim.

mod common;

use amoeba_checkpoint::Checkpoint;
use common::{CONFIG, INDEX, folder, raw};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; the counters are atomics and allocate nothing.
// The default `realloc` allocates, copies and frees, which counts both buffers as the bound does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's contract is ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn measured(case: &str, config: &str, files: &[(&str, Vec<u8>)], opens: bool) {
    let dir = folder(config, files);
    let size = config.len() + files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let before = NOW.load(SeqCst);
    PEAK.store(before, SeqCst);
    let result = Checkpoint::open(dir.path());
    let used = PEAK.load(SeqCst) - before;
    assert!(used <= 2 * size + (64 << 20), "{case}: {used} bytes for files of {size}");
    assert_eq!(result.is_ok(), opens, "{case}: {:?}", result.err().map(|e| e.to_string()));
}

/// A header of `count` empty tensors, each with this shape text.
fn empties(count: usize, shape: &str) -> Vec<u8> {
    let mut header = String::from("{");
    for i in 0..count {
        let comma = if i == 0 { "" } else { "," };
        header += &format!(r#"{comma}"{i}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,0]}}"#);
    }
    raw((header + "}").as_bytes(), &[])
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn bounded() {
    let model = |bytes: Vec<u8>| vec![("model.safetensors", bytes)];
    measured("a million tensors", CONFIG, &model(empties(1_000_000, "0")), true);
    measured("a million of 8 dims", CONFIG, &model(empties(1_000_000, "0,1,1,1,1,1,1,1")), true);
    measured("too many tensors", CONFIG, &model(empties(1_100_000, "0")), false);
    let claims = [u64::MAX, 1 << 40, 100_000_001, 100_000_000];
    for length in claims {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        measured("header length", CONFIG, &model(bytes), false);
    }
    let one = r#"{"x":{"dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,9223372036854775808]}}"#;
    measured("huge tensor", CONFIG, &model(raw(one.as_bytes(), &[0; 8])), false);
    let name = format!(r#"{{"{}":1}}"#, "\\u0061".repeat(10_000_000));
    measured("endless name", CONFIG, &model(raw(name.as_bytes(), &[])), false);
    let pairs: Vec<String> = (0..3_000_000).map(|i| format!("\"{i}\":\"\"")).collect();
    let metadata = format!(r#"{{"__metadata__":{{{}}}}}"#, pairs.join(","));
    measured("metadata", CONFIG, &model(raw(metadata.as_bytes(), &[])), false);
    let zeros = format!(r#"{{"x":{{"shape":[{}0]"#, "0,".repeat(20_000_000));
    measured("endless shape", CONFIG, &model(raw(zeros.as_bytes(), &[])), false);

    let file = common::container(&[("a", "BF16", &[2])]);
    let with = |index: String| vec![("model.safetensors", file.clone()), (INDEX, index.into_bytes())];
    let index = |pairs: Vec<String>| with(format!(r#"{{"weight_map":{{{}}}}}"#, pairs.join(",")));
    let pairs = (0..1_000_001).map(|i| format!("\"{i}\":\"m\"")).collect();
    measured("index of a million", CONFIG, &index(pairs), true);
    let pairs = (0..500_000).map(|i| format!("\"{i}\":\"{i}.safetensors\"")).collect();
    measured("index of many files", CONFIG, &index(pairs), true);

    for text in ["[]", "{}", r#"{"":0}"#, "0", "\"\"", "NaN", "[[]]", r#"[{"":[0]}]"#] {
        let many = format!(r#"{{"a":[{}0]}}"#, format!("{text},").repeat((8 << 20) / (text.len() + 1) - 16));
        measured(text, &many, &model(file.clone()), false);
        let most = format!(r#"{{"a":[{}0]}}"#, format!("{text},").repeat(24_000));
        measured(text, &most, &model(file.clone()), true);
    }
    let keys: Vec<String> = (0..95_000).map(|i| format!("\"{i}\":{{}}")).collect();
    let overrides = format!(r#"{{"quantization":{{{}}}}}"#, keys.join(","));
    measured("overrides", &overrides, &model(file.clone()), true);
}
