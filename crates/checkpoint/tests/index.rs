//! Test list A3: the shard index against the folder.

mod common;

use amoeba_checkpoint::Checkpoint;
use amoeba_checkpoint::ErrorKind::{Config, Corrupt, NotFound, Unsupported};
use common::{CONFIG, INDEX, container, folder, open_refused};
use std::path::Path;

const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";

fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<String> = pairs.iter().map(|(t, f)| format!("{t:?}:{f:?}")).collect();
    format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{}}}}}"#, fields.join(",")).into_bytes()
}

fn shard(names: &[&str]) -> Vec<u8> {
    container(&names.iter().map(|name| (*name, "BF16", &[2_usize][..])).collect::<Vec<_>>())
}

#[test]
fn good_indices() {
    let dir = folder(CONFIG, &[(ONE, shard(&["a", "b"])), (TWO, shard(&["c"]))]);
    assert_eq!(Checkpoint::open(dir.path()).unwrap().names().count(), 3, "no index: all model*.safetensors");
    std::fs::write(dir.path().join(INDEX), map(&[("c", TWO), ("b", ONE), ("a", ONE)])).unwrap();
    let model = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(model.tensor("c").unwrap().shape, [2]);
    std::fs::write(dir.path().join("model-old.safetensors"), shard(&["z"])).unwrap();
    std::fs::write(dir.path().join("expected.safetensors"), b"junk").unwrap();
    assert!(!Checkpoint::open(dir.path()).unwrap().has("z"), "files outside the index are not loaded");
    std::fs::write(dir.path().join("model-old.safetensors"), shard(&["z", "b"])).unwrap();
    open_refused("shadowing extra", dir.path(), Corrupt, &["model-old", "`b`", ONE]);
}

#[test]
fn disagreements() {
    let good = [(ONE, shard(&["a", "b"])), (TWO, shard(&["c"]))];
    let cases = [
        ("stale: tensor gone", map(&[("a", ONE), ("b", ONE), ("c", TWO), ("d", TWO)]), Corrupt, "`d`"),
        ("tensor elsewhere", map(&[("a", ONE), ("b", TWO), ("c", TWO)]), Corrupt, "`b`"),
        ("tensor unlisted", map(&[("a", ONE), ("c", TWO)]), Corrupt, "`b`"),
        ("listed twice", map(&[("a", ONE), ("b", ONE), ("b", ONE), ("c", TWO)]), Corrupt, "`b`"),
        ("listed in two", map(&[("a", ONE), ("b", ONE), ("b", TWO), ("c", TWO)]), Corrupt, "`b`"),
        ("missing shard", map(&[("a", ONE), ("b", ONE), ("c", "model-3.safetensors")]), NotFound, "model-3"),
        ("case clash", map(&[("a", ONE), ("b", "MODEL-00001-of-00002.safetensors")]), Corrupt, "spellings"),
        ("empty map", map(&[]), Corrupt, "weight_map"),
    ];
    for (name, index, kind, word) in cases {
        let dir = folder(CONFIG, &good);
        std::fs::write(dir.path().join(INDEX), index).unwrap();
        open_refused(name, dir.path(), kind, &[word]);
    }
    let dir = folder(CONFIG, &[(ONE, shard(&["a", "b"])), (TWO, shard(&["b"]))]);
    open_refused("in two shards, no index", dir.path(), Corrupt, &["`b`", ONE, TWO]);
    std::fs::write(dir.path().join(INDEX), map(&[("a", ONE), ("b", TWO)])).unwrap();
    open_refused("in two shards", dir.path(), Corrupt, &["`b`", ONE, TWO]);
}

#[test]
fn file_names() {
    let long = format!("{}.safetensors", "m".repeat(4096));
    let names = [
        "../model.safetensors",
        "..",
        ".",
        "",
        "/etc/passwd",
        "/model.safetensors",
        "sub/model.safetensors",
        "sub\\model.safetensors",
        "C:model.safetensors",
        "model\u{0}.safetensors",
        "model\n.safetensors",
        long.as_str(),
    ];
    for name in names {
        let text = serde_json::json!({"weight_map": {"a": name}}).to_string();
        let dir = folder(CONFIG, &[("model.safetensors", shard(&["a"])), (INDEX, text.into_bytes())]);
        open_refused(&format!("{name:?}"), dir.path(), Corrupt, &[INDEX]);
    }
    let dir = folder(CONFIG, &[("config2.json", b"{}".to_vec()), (INDEX, map(&[("a", "config.json")]))]);
    open_refused("another kind of file", dir.path(), Unsupported, &[INDEX, ".safetensors"]);
}

#[test]
fn malformed_indices() {
    let deep = format!(r#"{{"metadata":{}"#, "[".repeat(100_000));
    let cases = [
        "",
        r#"{"weight_map":{"a":"model.safetensors"},"weight_map":{"a":"model.safetensors"}}"#,
        r#"{"weight_map":{"a":"model.safetensors"}} x"#,
        r#"{"weight_map":{"":"model.safetensors"}}"#,
        deep.as_str(),
    ];
    let short = r#"{ [] null 3 {} {"weight_map":null} {"weight_map":[]} {"weight_map":{"a":1}}
        {"weight_map":{"a":null}} {"weight_map":{"a":["m"]}}"#;
    for text in short.split_whitespace().chain(cases) {
        let dir = folder(CONFIG, &[("model.safetensors", shard(&["a"])), (INDEX, text.as_bytes().to_vec())]);
        open_refused(text.get(..20).unwrap_or(text), dir.path(), Corrupt, &[INDEX]);
    }
    let bad_utf8 = b"{\"weight_map\":{\"a\xff\":\"model.safetensors\"}}".to_vec();
    let dir = folder(CONFIG, &[("model.safetensors", shard(&["a"])), (INDEX, bad_utf8)]);
    open_refused("not UTF-8", dir.path(), Corrupt, &[INDEX]);
}

#[test]
fn folders() {
    open_refused("nothing there", Path::new("/nonexistent/model"), NotFound, &["/nonexistent/model"]);
    let dir = folder::<&[u8]>(CONFIG, &[]);
    open_refused("no weights", dir.path(), NotFound, &["safetensors"]);
    open_refused("a file", &dir.path().join("config.json"), NotFound, &["not a folder"]);
    let dir = folder("", &[("model.safetensors", shard(&["a"]))]);
    open_refused("empty config", dir.path(), Config, &["config.json"]);
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    open_refused("no config", dir.path(), NotFound, &["config.json"]);
    let dir = folder(CONFIG, &[("model\u{1b}[31m.safetensors", shard(&["a"]))]);
    open_refused("escape in a file name", dir.path(), Corrupt, &["u{1b}"]);
    let dir = folder(CONFIG, &[("model-1.safetensors", shard(&["a"]))]);
    std::fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    open_refused("a folder as weights", dir.path(), Unsupported, &["model.safetensors", "regular file"]);
}

#[cfg(unix)]
#[test]
fn symlinks_are_followed_to_regular_files_only() {
    use std::os::unix::fs::symlink;
    // As in the Hugging Face cache: the snapshot links to a blob elsewhere.
    let blobs = folder(CONFIG, &[("blob", shard(&["a"]))]);
    let dir = folder::<&[u8]>(CONFIG, &[]);
    let link = dir.path().join("model.safetensors");
    symlink(blobs.path().join("blob"), &link).unwrap();
    assert!(Checkpoint::open(dir.path()).unwrap().has("a"));
    for (target, kind) in [("/dev/zero", Unsupported), ("/nonexistent", NotFound), ("/", Unsupported)] {
        std::fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        open_refused(target, dir.path(), kind, &["model.safetensors"]);
    }
    let config = dir.path().join("config.json");
    std::fs::remove_file(&config).unwrap();
    symlink("/dev/zero", &config).unwrap();
    open_refused("endless config", dir.path(), Unsupported, &["config.json"]);
}

#[test]
fn a_file_that_changes_after_opening_is_noticed() {
    let dir = folder(CONFIG, &[("model.safetensors", shard(&["a"]))]);
    let model = Checkpoint::open(dir.path()).unwrap();
    model.check_unchanged().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("model.safetensors")).unwrap();
    file.set_len(9).unwrap();
    common::refused("shrunk", model.check_unchanged(), Corrupt, &["model.safetensors", "changed"]);
}
