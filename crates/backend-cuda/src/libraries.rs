//! Where NVRTC may be besides the loader's path: toolkits, and the packages of Python environments.

use std::path::{Path, PathBuf};

/// Folders to look into, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Libraries {
    folders: Vec<PathBuf>,
}

/// Variables that name a toolkit.
const TOOLKITS: [&str; 3] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"];
/// Variables that name a Python environment.
const ENVIRONMENTS: [&str; 2] = ["VIRTUAL_ENV", "CONDA_PREFIX"];
/// Where NVIDIA's packages lie below `site-packages`, the newest first.
const PACKAGES: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

impl Libraries {
    /// These folders.
    pub fn in_folders(folders: Vec<PathBuf>) -> Libraries {
        Libraries { folders }
    }

    /// From the environment.
    pub fn from_env() -> Libraries {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let toolkits = TOOLKITS.iter().filter_map(|name| set(name)).chain([PathBuf::from("/usr/local/cuda")]);
        let home = set("HOME").map(|home| home.join(".local"));
        let environments = ENVIRONMENTS.iter().filter_map(|name| set(name));
        // The environment of each python3 that can be called.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let called: Vec<PathBuf> = std::env::split_paths(&path)
            .filter(|bin| bin.join("python3").exists())
            .filter_map(|bin| Some(bin.parent()?.to_owned()))
            .collect();
        let environments = environments
            .chain(called)
            .chain(home)
            .chain([PathBuf::from("/usr/local"), PathBuf::from("/usr")]);
        Libraries::of(toolkits, environments)
    }

    fn of(toolkits: impl Iterator<Item = PathBuf>, environments: impl Iterator<Item = PathBuf>) -> Libraries {
        let toolkits = toolkits
            .flat_map(|toolkit| ["lib64", "lib", "targets/x86_64-linux/lib"].map(|lib| toolkit.join(lib)));
        let folders = toolkits.chain(environments.flat_map(|environment| packages(&environment)));
        Libraries { folders: folders.filter(|folder| folder.is_dir()).collect() }
    }

    /// The folders that exist.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.folders.iter().cloned()
    }
}

/// Folders of NVIDIA's packages in `lib/python3.X/{site,dist}-packages` of an environment.
fn packages(environment: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(environment.join("lib")) else { return Vec::new() };
    let mut pythons: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    pythons.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")));
    pythons.sort();
    let sites =
        pythons.iter().flat_map(|python| ["site-packages", "dist-packages"].map(|site| python.join(site)));
    sites.flat_map(|site| PACKAGES.map(|package| site.join(package))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolkits_come_before_packages_and_only_what_exists_counts() {
        let root = std::env::temp_dir().join(format!("amoeba-libraries-{}", std::process::id()));
        let [toolkit, environment] = ["cuda", "venv"].map(|name| root.join(name));
        let site = environment.join("lib/python3.12/site-packages");
        let expected = [toolkit.join("lib64"), site.join(PACKAGES[0]), site.join(PACKAGES[1])];
        expected.iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        std::fs::create_dir_all(environment.join("lib/perl5/site-packages").join(PACKAGES[0])).unwrap();
        let found = Libraries::of([toolkit].into_iter(), [environment, root.join("none")].into_iter());
        assert_eq!(found.folders, expected);
        std::fs::remove_dir_all(root).unwrap();
    }
}
