//! Units built by the host's compiler, and launches of their kernels.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use amoeba_kernels::gpu::{Call, Unit};

use crate::device;

type ArgsSize = unsafe extern "C" fn(*const c_char) -> u32;
type Launch = unsafe extern "C" fn(*const c_char, *const u32, u32, u32, *const c_void) -> c_int;
type Shuffle = unsafe extern "C" fn(u32);

#[derive(Clone, Copy)]
struct Module {
    args_size: ArgsSize,
    launch: Launch,
    shuffle: Shuffle,
}

/// Loaded units. An emulated device runs one kernel at a time, so the lock is held during launches.
static MODULES: LazyLock<Mutex<HashMap<Unit, Module>>> = LazyLock::new(Mutex::default);

/// The compiler, if there is one.
static COMPILER: LazyLock<Option<String>> = LazyLock::new(|| {
    let named = std::env::var("CXX").ok().into_iter().chain(["c++".to_owned(), "g++".to_owned()]);
    let works =
        |name: &String| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    let found = named.into_iter().find(works);
    if found.is_none() {
        eprintln!("skipped: no C++ compiler (c++, g++ or $CXX)");
    }
    found
});

/// Whether there is a compiler, or a device that needs none; says so if not.
pub fn available() -> bool {
    device::chosen() || COMPILER.is_some()
}

/// Runs one launch with turns in the order of that seed.
pub fn launch(call: &Call, seed: u32) {
    if device::launch(call) {
        return;
    }
    let path = built(&call.unit);
    let mut modules = MODULES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let module = *modules.entry(call.unit.clone()).or_insert_with(|| load(&path));
    let name = CString::new(call.kernel).unwrap();
    // SAFETY: the functions of emulate.h, as declared there; the name lives through the calls, the parameter
    // has the size that the kernel says it reads. What addresses in it point to is checked by guard pages.
    let outcome = unsafe {
        assert_eq!(
            (module.args_size)(name.as_ptr()) as usize,
            call.args.len(),
            "{}: size of args",
            call.kernel
        );
        (module.shuffle)(seed);
        let args = call.args.words().as_ptr().cast();
        (module.launch)(name.as_ptr(), call.grid.as_ptr(), call.block, call.shared, args)
    };
    assert_eq!(outcome, 0, "launch of {call:?}");
}

/// The shared library of a unit, built unless it is there.
fn built(unit: &Unit) -> PathBuf {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/cuda-emulation");
    let source = unit.source();
    let mut hasher = DefaultHasher::new();
    (&source, std::fs::read_to_string(header.join("emulate.h")).unwrap(), &*COMPILER).hash(&mut hasher);
    let stem =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda-emulation-{:016x}", hasher.finish()));
    let library = stem.with_extension("so");
    // Tests run side by side, in threads and in processes: one builds, the others wait for it.
    let turn = std::fs::File::create(stem.with_extension("lock")).unwrap();
    turn.lock().unwrap();
    if !library.exists() {
        let (text, result) = (stem.with_extension("cpp"), stem.with_extension("tmp"));
        std::fs::write(&text, source).unwrap();
        let mut command = Command::new(COMPILER.as_ref().unwrap());
        command.args(["-std=c++17", "-nostdinc++", "-Og", "-Wall", "-Werror", "-Wno-unknown-pragmas"]);
        command.args(["-Wno-unused-function", "-shared", "-fPIC", "-fvisibility=hidden", "-DAMOEBA_EMULATE"]);
        let output = command.arg("-I").arg(&header).arg(&text).arg("-o").arg(&result).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?} of {:?}:\n{errors}", unit.op.0, unit.defines);
        std::fs::rename(result, &library).unwrap();
        std::fs::remove_file(text).unwrap();
    }
    library
}

fn load(path: &Path) -> Module {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a library built from emulate.h, which only defines functions and registers kernels when loaded.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null(), "{path:?}");
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: an open library and a name that ends in zero.
        let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    };
    // SAFETY: emulate.h defines these symbols with these types, and the library is never closed.
    unsafe {
        Module {
            args_size: std::mem::transmute::<*mut c_void, ArgsSize>(symbol(c"emu_args_size")),
            launch: std::mem::transmute::<*mut c_void, Launch>(symbol(c"emu_launch")),
            shuffle: std::mem::transmute::<*mut c_void, Shuffle>(symbol(c"emu_shuffle")),
        }
    }
}
