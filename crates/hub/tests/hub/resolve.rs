//! Names: which folder they mean, and what is said when they mean none.
use amoeba_hub::{Error, Hub};
use std::path::{Path, PathBuf};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Puts a model into the cache, without the download.
fn cached(cache: &Path, folder: &str, reference: &str) -> PathBuf {
    let root = cache.join(folder);
    let dir = root.join("snapshots").join(COMMIT);
    put(&root.join("refs").join(reference), COMMIT);
    put(&dir.join("config.json"), "{}");
    put(&dir.join("model.safetensors"), "weights");
    dir
}

#[test]
fn a_folder_comes_first() {
    let home = tempfile::tempdir().unwrap();
    put(&home.path().join("config.json"), "{}");
    put(&home.path().join("model-00001-of-00001.safetensors"), "x");
    let found = Hub::new("/nowhere").resolve(home.path().to_str().unwrap()).unwrap();
    assert_eq!(found.dir, home.path());
    assert!(found.how.starts_with("folder /"), "{}", found.how);
}

#[test]
fn ids_and_bare_names_are_found_in_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(cache.path());
    let dir = cached(cache.path(), "models--mlx-community--Qwen3-4bit", "main");
    let full = hub.resolve("mlx-community/Qwen3-4bit").unwrap();
    assert_eq!(
        (full.dir, full.how.as_str()),
        (dir.clone(), "mlx-community/Qwen3-4bit in the cache (commit 01234567)")
    );
    let bare = hub.resolve("Qwen3-4bit").unwrap();
    assert_eq!(bare.dir, dir);
    assert!(bare.how.ends_with("(commit 01234567, bare name of mlx-community)"), "{}", bare.how);
    assert!(hub.resolve(&format!("mlx-community/Qwen3-4bit@{COMMIT}")).is_ok());
    assert!(hub.resolve("mlx-community/Qwen3-4bit@dev").is_err());
}

#[test]
fn a_missing_model_says_where_it_was_looked_for_and_how_to_get_it() {
    let error = Hub::new("/no/cache").resolve("Qwen3-4bit").unwrap_err().to_string();
    let expected = "`Qwen3-4bit` was not found; looked for\n    folder   Qwen3-4bit/config.json\n    \
        cache    /no/cache/models--mlx-community--Qwen3-4bit\n  to download it: amoeba pull \
        mlx-community/Qwen3-4bit";
    assert_eq!(error, expected);
}

#[test]
fn unfinished_models_say_what_is_missing() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(cache.path());
    let dir = cached(cache.path(), "models--o--m", "main");
    let index = "{\"weight_map\": {\"a\": \"model.safetensors\", \"b\": \"model-2.safetensors\"}}";
    put(&dir.join("model.safetensors.index.json"), index);
    let error = hub.resolve("o/m").unwrap_err().to_string();
    assert!(error.contains("model-2.safetensors is missing"), "{error}");
    assert!(error.contains("amoeba pull o/m"), "{error}");
    std::fs::remove_file(dir.join("model.safetensors.index.json")).unwrap();
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert!(hub.resolve("o/m").unwrap_err().to_string().contains("model.safetensors is missing"));
}

#[test]
fn paths_are_not_mistaken_for_ids() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(home.path());
    let folder = hub.resolve(home.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(&folder, Error::Incomplete { missing, .. } if missing == "config.json"), "{folder}");
    for name in ["./x", "/no/such/folder", "a/b/c", "../x", "~/x"] {
        let error = hub.resolve(name).unwrap_err().to_string();
        assert!(error.contains("no such folder exists"), "{name}: {error}");
    }
}

#[test]
fn references_that_climb_out_of_the_cache_are_ignored() {
    let cache = tempfile::tempdir().unwrap();
    cached(cache.path(), "models--o--m", "main");
    put(&cache.path().join("models--o--m/refs/main"), "../../../other");
    assert!(matches!(Hub::new(cache.path()).resolve("o/m"), Err(Error::NotFound { .. })));
}

#[test]
fn the_cache_is_listed_in_order_and_foreign_things_are_left_alone() {
    let cache = tempfile::tempdir().unwrap();
    let dir = cached(cache.path(), "models--o--m", "main");
    cached(cache.path(), "models--a--b", "refs/pr/1");
    put(&cache.path().join("models--a--b/snapshots/ffff/config.json"), "{}");
    put(&cache.path().join("datasets--a--b/refs/main"), "x");
    put(&cache.path().join("version.txt"), "1");
    let found = Hub::new(cache.path()).list().unwrap();
    let rows: Vec<_> = found.iter().map(|m| (m.id.as_str(), m.revision.as_str(), m.bytes)).collect();
    assert_eq!(rows, [("a/b", "refs/pr/1", 9), ("o/m", "main", 9)], "only what has weights");
    assert_eq!(found[1].path, dir);
    assert_eq!(Hub::new("/no/cache").list().unwrap(), []);
}
