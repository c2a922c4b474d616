//! Models with a tokenizer, for tests of text: a fixture whose weights come from a seed has none of its own.

use std::path::Path;

/// A folder with the files of a model of this repository (`fixtures/NAME`, `models/NAME`), and with the
/// tokenizer of a fixture of the same vocabulary if it has none.
pub fn speaking(model: &str) -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    for from in ["fixtures/qwen3_moe-q4g64", model] {
        for entry in std::fs::read_dir(root.join(from)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if from == model || name.to_string_lossy().starts_with("tokenizer") {
                std::fs::copy(entry.path(), folder.path().join(name)).unwrap();
            }
        }
    }
    folder
}
