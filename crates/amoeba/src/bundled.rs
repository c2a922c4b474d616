//! Finds the model that comes with the program.
use std::path::{Path, PathBuf};

use crate::Error;

/// Folder name of the bundled model.
pub const BUNDLED: &str = "tiny-chat-moe-4bit";

/// The folder of the bundled model. Looks in `$AMOEBA_MODELS`, then for `models/` in the current folder and
/// those above it, in the program's folder and those above it, and where the program was built.
///
/// # Errors
/// [`Error::NoBundledModel`] with all places tried.
pub fn bundled_model() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let starts = [
        std::env::current_dir().ok(),
        program.as_deref().and_then(Path::parent).map(Path::to_path_buf),
        Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
    ];
    let models = std::env::var_os("AMOEBA_MODELS").filter(|value| !value.is_empty()).map(PathBuf::from);
    search(models, &starts.into_iter().flatten().collect::<Vec<_>>())
}

/// Tries the named folder, then `models/` from each start upwards.
fn search(models: Option<PathBuf>, starts: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut looked = Vec::new();
    let named = models.into_iter().flat_map(|dir| [dir.join(BUNDLED), dir]);
    let above = starts.iter().flat_map(|start| start.ancestors()).map(|dir| dir.join("models").join(BUNDLED));
    for dir in named.chain(above) {
        if dir.join("config.json").is_file() {
            return Ok(dir);
        }
        if !looked.contains(&dir) {
            looked.push(dir);
        }
    }
    Err(Error::NoBundledModel { looked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_folder_comes_first_then_the_nearest_above() {
        let root = tempfile::tempdir().unwrap();
        let put = |dir: &str| {
            let dir = root.path().join(dir).join(BUNDLED);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("config.json"), "{}").unwrap();
            dir
        };
        let (far, near, named) = (put("models"), put("a/models"), put("elsewhere"));
        let start = [root.path().join("a/b/c")];
        assert_eq!(search(None, &start).unwrap(), near);
        assert_eq!(search(None, &[root.path().join("x")]).unwrap(), far);
        assert_eq!(search(Some(root.path().join("elsewhere")), &start).unwrap(), named);
        assert_eq!(search(Some(named.clone()), &start).unwrap(), named);
    }

    #[test]
    fn the_error_says_where_it_looked() {
        let error = search(Some("/nowhere".into()), &["/no/such".into()]).unwrap_err().to_string();
        for place in
            ["/nowhere/tiny-chat-moe-4bit\n", "/no/such/models/tiny", "/no/models/tiny", "AMOEBA_MODELS"]
        {
            assert!(error.contains(place), "{error}");
        }
    }
}
