//! Test list A3: the shard index against the folder.

mod common;

use amoeba_checkpoint::ErrorKind::{Config, Corrupt, NotFound, Unsupported};
use amoeba_checkpoint::{Checkpoint, read_small};
use common::{CONFIG, INDEX, container, folder, open_refused, refused};
use std::path::Path;

const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";

fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<String> = pairs.iter().map(|(t, f)| format!("{t:?}:{f:?}")).collect();
    format!(r#"{{"metadata":{{"total_size":9999}},"weight_map":{{{}}}}}"#, fields.join(",")).into_bytes()
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
    let model = Checkpoint::open(dir.path()).unwrap();
    assert!(
        !model.has("z") && model.tensor("b").unwrap().shape == [2],
        "a second set of weights is not read"
    );
    assert!(model.notes()[0].contains("model-old.safetensors: not read"), "{:?}", model.notes());
}

/// The files are believed, and a note says what is wrong with the index.
#[test]
fn an_index_of_other_files() {
    let (one, two) = ((ONE, shard(&["a", "b"])), (TWO, shard(&["c"])));
    let both = [one.clone(), two.clone()];
    let single = [("model.safetensors", shard(&["a", "b", "c"]))];
    let rest = [one, ("model.safetensors", shard(&["c"])), ("model-old.safetensors", shard(&["a", "z"]))];
    let of_five =
        map(&[("a", "model-00001-of-00005.safetensors"), ("c", "model-00005-of-00005.safetensors")]);
    let complete = r#"{"metadata":{"total_size": 4},"weight_map":{"a":"M1","b":"M9"}}"#;
    let complete = complete.replace("M1", ONE).replace("M9", "model-9.safetensors").into_bytes();
    let cases: &[(&[(&str, Vec<u8>)], Vec<u8>, &str)] = &[
        (&both, map(&[("a", ONE), ("b", ONE), ("c", TWO), ("d", TWO)]), "`d` is in no file"),
        (&both, map(&[("a", ONE), ("b", TWO), ("c", TWO)]), "`b` is in model-00001"),
        (&both, map(&[("a", ONE), ("c", TWO)]), "`b` is not listed"),
        (&both, of_five.clone(), "names 2 files and none is here"),
        (&single, of_five, "names 2 files and none is here"),
        (&rest, map(&[("a", ONE), ("b", ONE), ("c", TWO)]), "`c` is in no file"),
        (&both, complete, "`b` is in model-00001"),
        (&single, map(&[]), "lists no tensor"),
        (&single, b"".to_vec(), "is not a valid shard index"),
    ];
    for (files, index, note) in cases {
        let dir = folder(CONFIG, files);
        std::fs::write(dir.path().join(INDEX), index).unwrap();
        let model = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(model.names().collect::<Vec<_>>(), ["a", "b", "c"], "{note}");
        assert!(model.notes()[0].contains(note), "{note}: {:?}", model.notes());
        refused(note, model.tensor("d"), if note.contains("`d`") { NotFound } else { Corrupt }, &["`d`"]);
    }
}

#[test]
fn disagreements() {
    let good = [(ONE, shard(&["a", "b"])), (TWO, shard(&["c"]))];
    let cases = [
        ("listed twice", map(&[("a", ONE), ("b", ONE), ("b", ONE), ("c", TWO)]), Corrupt, "`b`"),
        ("listed in two", map(&[("a", ONE), ("b", ONE), ("b", TWO), ("c", TWO)]), Corrupt, "`b`"),
        ("case clash", map(&[("a", ONE), ("b", "MODEL-00001-of-00002.safetensors")]), Corrupt, "spellings"),
    ];
    for (name, index, kind, word) in cases {
        let dir = folder(CONFIG, &good);
        std::fs::write(dir.path().join(INDEX), index).unwrap();
        open_refused(name, dir.path(), kind, &[word]);
    }
    let dir = folder(CONFIG, &[(ONE, shard(&["a", "b"])), (INDEX, map(&[("a", ONE), ("c", TWO)]))]);
    open_refused("missing shard", dir.path(), NotFound, &[TWO, "download"]);
    let dir = folder(CONFIG, &[(ONE, shard(&["a", "b"])), (TWO, shard(&["b"]))]);
    open_refused("in two shards, no index", dir.path(), Corrupt, &["`b`", ONE, TWO]);
    std::fs::write(dir.path().join(INDEX), map(&[("a", ONE), ("b", TWO)])).unwrap();
    open_refused("in two shards", dir.path(), Corrupt, &["`b`", ONE, TWO]);
}

#[test]
fn file_names() {
    let names = "../model.safetensors .. . /etc/passwd /model.safetensors sub/model.safetensors \
        sub\\model.safetensors C:model.safetensors";
    for name in names.split_whitespace() {
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
    let long = format!(r#"{{"weight_map":{{"a":"{}.safetensors"}}}}"#, "m".repeat(4096));
    let cases = [
        "",
        long.as_str(),
        "{\"weight_map\":{\"a\":\"model\\n.safetensors\"}}",
        r#"{"weight_map":{"a":"model.safetensors"},"weight_map":{"a":"model.safetensors"}}"#,
        r#"{"weight_map":{"a":"model.safetensors"}} x"#,
        r#"{"weight_map":{"":"model.safetensors"}}"#,
        deep.as_str(),
    ];
    let short = r#"{ [] null 3 {} {"weight_map":null} {"weight_map":[]} {"weight_map":{"a":1}}
        {"weight_map":{"a":null}} {"weight_map":{"a":["m"]}} {"weight_map":{"a":""}}"#;
    for text in short.split_whitespace().chain(cases) {
        let dir = folder(CONFIG, &[("model.safetensors", shard(&["a"])), (INDEX, text.as_bytes().to_vec())]);
        assert!(Checkpoint::open(dir.path()).unwrap().notes()[0].contains(INDEX), "not needed: {text:.20}");
    }
    let bad_utf8 = b"{\"weight_map\":{\"a\xff\":\"model.safetensors\"}}".to_vec();
    let dir = folder(CONFIG, &[("model.safetensors", shard(&["a"])), (INDEX, bad_utf8)]);
    assert!(Checkpoint::open(dir.path()).unwrap().notes()[0].contains(INDEX), "not UTF-8");
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
    // Small files: within the folder, or from a snapshot to the blobs of its model.
    let home = tempfile::tempdir().unwrap();
    let snapshot = home.path().join("models--o--m/snapshots/abc");
    std::fs::create_dir_all(snapshot.join("extra")).unwrap();
    std::fs::create_dir_all(home.path().join("models--o--m/blobs")).unwrap();
    for file in ["models--o--m/blobs/b", "models--o--m/other", "models--o--m/snapshots/abc/real"] {
        std::fs::write(home.path().join(file), "{}").unwrap();
    }
    let cases = [
        ("json", "../../blobs/b", true),
        ("extra/json", "../../../blobs/b", true),
        ("json", "real", true),
        ("json", "../../other", false),
        ("json", "../../blobs", false),
        ("json", "/dev/zero", false),
        ("json", "/etc/hostname", false),
    ];
    for (file, target, good) in cases {
        let file = snapshot.join(file);
        let _ = std::fs::remove_file(&file);
        symlink(target, &file).unwrap();
        let found = read_small(&file, 100);
        match good {
            true => assert_eq!(found.unwrap().unwrap(), b"{}", "{target}"),
            false => refused(target, found, Unsupported, &["json"]),
        }
    }
}

#[test]
fn a_file_that_changes_after_opening_is_noticed() {
    let dir = folder(CONFIG, &[("model.safetensors", shard(&["a"]))]);
    let model = Checkpoint::open(dir.path()).unwrap();
    model.check_unchanged().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("model.safetensors")).unwrap();
    file.set_len(9).unwrap();
    refused("shrunk", model.check_unchanged(), Corrupt, &["model.safetensors", "changed"]);
}
