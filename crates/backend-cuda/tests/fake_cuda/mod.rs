//! A machine with a GPU where there is none: a driver and a compiler on which the host code runs unmodified,
//! kernels included, in emulation. Needs a C++ compiler and x86-64 Linux.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The libraries, built.
pub struct Fake {
    libraries: PathBuf,
    /// Where compiled kernels are kept from run to run.
    pub kernels: PathBuf,
    /// Where the fake compiler keeps units, for all tests.
    units: PathBuf,
}

/// Where `cuda-emulation/` of the kernels is.
fn emulation() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/cuda-emulation")
}

impl Fake {
    /// Builds the libraries if that was not done yet.
    pub fn build() -> Fake {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backend-cuda/tests/fake_cuda");
        let mut hash = DefaultHasher::new();
        for file in [sources.join("libcuda.cpp"), sources.join("libnvrtc.cpp"), emulation().join("emulate.h")]
        {
            std::fs::read(file).unwrap().hash(&mut hash);
        }
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-cuda-{:016x}", hash.finish()));
        let libraries = root.join("lib");
        if !libraries.exists() {
            // Tests are threads or processes.
            let own = (std::process::id(), std::thread::current().id());
            let aside = root.join(format!("lib.{own:?}"));
            std::fs::create_dir_all(&aside).unwrap();
            for name in ["libcuda", "libnvrtc"] {
                let (source, library) =
                    (sources.join(format!("{name}.cpp")), aside.join(format!("{name}.so")));
                let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
                let flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-ldl", "-o"];
                let done = Command::new(compiler).arg(source).args(flags).arg(library).status();
                assert!(done.expect("a C++ compiler (c++, or as CXX says)").success());
            }
            // Another may have been faster.
            if std::fs::rename(&aside, &libraries).is_err() {
                assert!(libraries.exists());
                std::fs::remove_dir_all(&aside).unwrap();
            }
        }
        let units = root.join("units");
        std::fs::create_dir_all(&units).unwrap();
        Fake { libraries, kernels: root.join("kernels"), units }
    }

    /// A program that finds the fake driver and the fake compiler.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", &self.libraries).env("FAKE_NVRTC_INCLUDE", emulation());
        command.env("FAKE_NVRTC_UNITS", &self.units);
        command
    }
}

/// Runs a test's body on the fake device: the test starts itself again, with the libraries in its way.
#[allow(dead_code, reason = "tests of the program start that instead")]
pub fn on_fake(test: &str, settings: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os("FAKE_NVRTC_INCLUDE").is_some() {
        return body();
    }
    let mut command = Fake::build().command(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).envs(settings.iter().copied());
    let output = command.output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{out}");
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
}
