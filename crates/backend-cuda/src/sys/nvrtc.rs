//! NVRTC, the compiler: looked for without a panic, called for device code of one architecture.

use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};

/// A compiler that is there.
#[derive(Clone, Debug)]
pub struct Nvrtc {
    version: (i32, i32),
    folder: Option<PathBuf>,
}

impl Nvrtc {
    /// By the system's loader (which knows `LD_LIBRARY_PATH`), else in the first of some folders that has it.
    pub fn find(folders: impl IntoIterator<Item = PathBuf>) -> Option<Nvrtc> {
        let folder = if present() { None } else { Some(folders.into_iter().find(|folder| preload(folder))?) };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library is there, every version has this function, and it writes two ints.
        let asked = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
        (asked == sys::nvrtcResult::NVRTC_SUCCESS).then_some(Nvrtc { version: (major, minor), folder })
    }

    /// Such as "13.0".
    pub fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Where it was found if not by the system's loader.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Machine code of one source, a CUBIN.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Vec<u8>, String> {
        let text = |text: &str| CString::new(text).map_err(|_| "the source holds a zero byte".to_owned());
        // Kept until the program is destroyed, which may point into them.
        let (source, name) = (text(source)?, text(name)?);
        let program = result::create_program(&source, Some(&name)).map_err(|error| format!("{error:?}"))?;
        let compiled = compile(program, options);
        // SAFETY: the program was created above and is used no more.
        let _ = unsafe { result::destroy_program(program) };
        compiled
    }
}

/// Whether the system's loader finds it.
fn present() -> bool {
    // SAFETY: opens and closes the library by its well-known names, which runs its initialisers.
    unsafe { sys::is_culib_present() }
}

/// Opens the library of a folder and keeps it: from then on the loader finds it by its name.
fn preload(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc")));
    // "libnvrtc-builtins.so.13.0", which the compiler opens by name when it runs, comes first.
    names.sort();
    for path in &names {
        // SAFETY: runs the initialisers of an NVRTC in a folder where the user or NVIDIA's packages put it.
        if let Ok(library) = unsafe { libloading::Library::new(path) } {
            std::mem::forget(library);
        }
    }
    !names.is_empty() && present()
}

fn compile(program: sys::nvrtcProgram, options: &[String]) -> Result<Vec<u8>, String> {
    // SAFETY: the caller made the program and destroys it later.
    if let Err(error) = unsafe { result::compile_program(program, options) } {
        return Err(log(program).unwrap_or_else(|| format!("{error:?}")));
    }
    let failed = |error: result::NvrtcError| format!("{error:?}");
    let mut len = 0;
    // SAFETY: the program has been compiled; writes one size.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut len) }.result().map_err(failed)?;
    let mut code = vec![0u8; len];
    // SAFETY: writes as many bytes as it just said, into as many.
    unsafe { sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast::<c_char>()) }.result().map_err(failed)?;
    Ok(code)
}

fn log(program: sys::nvrtcProgram) -> Option<String> {
    // SAFETY: the program is alive; cudarc makes room for the size that the library says.
    let log = unsafe { result::get_program_log(program) }.ok()?;
    let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
    Some(String::from_utf8_lossy(&log).trim().to_owned()).filter(|log| !log.is_empty())
}
