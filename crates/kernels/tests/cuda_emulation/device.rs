//! The same launches on a real device: with `AMOEBA_OPS_DEVICE=0` the first GPU takes the place of the
//! emulator.
//!
//! Units go through NVRTC as in the product, memory is managed, so that tests read it where kernels wrote it.
//! Only driver and NVRTC are needed, from the loader's path; `compute-sanitizer` watches such a run as any
//! other. Most of the time goes into compiling: a folder named by `AMOEBA_OPS_CACHE` keeps machine code for
//! the next run, `AMOEBA_OPS=few` leaves out formats and repetitions.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::ptr;
use std::sync::{LazyLock, Mutex};

use amoeba_kernels::gpu::{Call, Unit};

type Handle = *mut c_void;
type Status = c_int;

/// Names of the driver's attributes.
const MAJOR: c_int = 75;
const MINOR: c_int = 76;
const CONCURRENT_MANAGED_ACCESS: c_int = 89;
const MAX_DYNAMIC_SHARED: c_int = 8;
/// Memory that every stream and the host may use.
const ATTACH_GLOBAL: c_uint = 1;

/// Declares functions of a library, found by their names.
macro_rules! library {
    ($library:ident { $($name:ident($($arg:ty),*);)* }) => {
        #[allow(non_snake_case, reason = "their own names")]
        struct $library { $($name: unsafe extern "C" fn($($arg),*) -> Status,)* }

        #[allow(non_snake_case, reason = "their own names")]
        impl $library {
            fn open(names: &[&CStr]) -> $library {
                // SAFETY: runs the initialisers of NVIDIA's libraries; they stay open.
                let open = |name: &&CStr| unsafe {
                    libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL)
                };
                let library = names.iter().map(open).find(|library| !library.is_null());
                let library = library.unwrap_or_else(|| panic!("none of {names:?} is on the loader's path"));
                let symbol = |name: &CStr| {
                    // SAFETY: an open library and a name that ends in zero.
                    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
                    assert!(!symbol.is_null(), "no {name:?} in {names:?}");
                    symbol
                };
                $(
                    let name = CString::new(stringify!($name)).unwrap();
                    // SAFETY: the type is that of the function of this name in NVIDIA's headers.
                    let $name = unsafe {
                        type Function = unsafe extern "C" fn($($arg),*) -> Status;
                        std::mem::transmute::<Handle, Function>(symbol(&name))
                    };
                )*
                $library { $($name,)* }
            }
        }
    };
}

library!(Driver {
    cuInit(c_uint);
    cuDeviceGet(*mut c_int, c_int);
    cuDeviceGetAttribute(*mut c_int, c_int, c_int);
    cuDevicePrimaryCtxRetain(*mut Handle, c_int);
    cuCtxSetCurrent(Handle);
    cuCtxSynchronize();
    cuMemAllocManaged(*mut u64, usize, c_uint);
    cuMemFree_v2(u64);
    cuModuleLoadData(*mut Handle, *const c_void);
    cuModuleGetFunction(*mut Handle, Handle, *const c_char);
    cuFuncSetAttribute(Handle, c_int, c_int);
    cuLaunchKernel(
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *const c_void, Handle
    );
});

library!(Nvrtc {
    nvrtcVersion(*mut c_int, *mut c_int);
    nvrtcCreateProgram(*mut Handle, *const c_char, *const c_char, c_int, Handle, Handle);
    nvrtcCompileProgram(Handle, c_int, *const *const c_char);
    nvrtcGetProgramLogSize(Handle, *mut usize);
    nvrtcGetProgramLog(Handle, *mut c_char);
    nvrtcGetCUBINSize(Handle, *mut usize);
    nvrtcGetCUBIN(Handle, *mut c_char);
});

/// The chosen device, ready.
struct Device {
    driver: Driver,
    nvrtc: Nvrtc,
    context: usize,
    arch: CString,
    /// Loaded units.
    modules: Mutex<HashMap<Unit, usize>>,
    /// Held while a kernel runs.
    turn: Mutex<()>,
    /// Where machine code is kept.
    cache: Option<PathBuf>,
}

static DEVICE: LazyLock<Option<Device>> = LazyLock::new(|| {
    std::env::var("AMOEBA_OPS_DEVICE").ok().map(|index| Device::open(index.parse().unwrap()))
});

/// Whether a device was asked for.
pub fn chosen() -> bool {
    DEVICE.is_some()
}

/// Whether every kernel is to run, but not with every format nor more than once: where each launch is
/// watched.
pub fn few() -> bool {
    std::env::var("AMOEBA_OPS").is_ok_and(|which| which == "few")
}

/// Managed memory, at least 256-aligned; None without a device.
pub fn allocate(len: usize) -> Option<*mut c_void> {
    let device = DEVICE.as_ref()?;
    device.enter();
    let mut address = 0;
    // SAFETY: writes one address; the context is current.
    check("cuMemAllocManaged", unsafe {
        (device.driver.cuMemAllocManaged)(&raw mut address, len, ATTACH_GLOBAL)
    });
    Some(address as *mut c_void)
}

/// Gives back what [`allocate`] gave.
pub fn free(memory: *mut c_void) {
    let Some(device) = DEVICE.as_ref() else { return };
    device.enter();
    // SAFETY: an address that `allocate` gave, freed once; no kernel runs outside `launch`. A failed kernel
    // makes this fail too, which was reported where it failed.
    unsafe { (device.driver.cuMemFree_v2)(memory as u64) };
}

/// Runs a launch to its end if a device was asked for.
pub fn launch(call: &Call) -> bool {
    let Some(device) = DEVICE.as_ref() else { return false };
    device.enter();
    let kernel = device.function(call);
    let mut args = [call.args.words().as_ptr().cast::<c_void>()];
    let [x, y, z] = call.grid;
    // One kernel at a time, so that whoever fails is the one that is named.
    let _turn = device.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let driver = &device.driver;
    // SAFETY: a loaded kernel that takes one parameter, whose bytes live through the call; what it points to
    // is memory of the test, which waits here until the kernel has ended.
    let launched = unsafe {
        let shared = call.shared as c_int;
        check("cuFuncSetAttribute", (driver.cuFuncSetAttribute)(kernel, MAX_DYNAMIC_SHARED, shared));
        let none = ptr::null_mut();
        (driver.cuLaunchKernel)(kernel, x, y, z, call.block, 1, 1, call.shared, none, args.as_mut_ptr(), none)
    };
    assert_eq!(launched, 0, "launch of {call:?}");
    // SAFETY: no arguments.
    assert_eq!(unsafe { (driver.cuCtxSynchronize)() }, 0, "{call:?}");
    true
}

impl Device {
    fn open(index: c_int) -> Device {
        let driver = Driver::open(&[c"libcuda.so.1", c"libcuda.so"]);
        let nvrtc = Nvrtc::open(&[c"libnvrtc.so.13", c"libnvrtc.so.12", c"libnvrtc.so"]);
        let (mut device, mut context) = (0, ptr::null_mut());
        // SAFETY: in the order the driver wants; each writes the one value it is given a place for.
        unsafe {
            check("cuInit", (driver.cuInit)(0));
            check("cuDeviceGet", (driver.cuDeviceGet)(&raw mut device, index));
            check("cuDevicePrimaryCtxRetain", (driver.cuDevicePrimaryCtxRetain)(&raw mut context, device));
        }
        let attribute = |name| {
            let mut value = 0;
            // SAFETY: writes one int.
            check("cuDeviceGetAttribute", unsafe {
                (driver.cuDeviceGetAttribute)(&raw mut value, name, device)
            });
            value
        };
        let alone = std::env::var("RUST_TEST_THREADS").is_ok_and(|threads| threads == "1");
        let message =
            "tests may not touch memory while another's kernel runs on this device: set RUST_TEST_THREADS=1";
        assert!(attribute(CONCURRENT_MANAGED_ACCESS) == 1 || alone, "{message}");
        let (major, minor) = (attribute(MAJOR), attribute(MINOR));
        let suffix = if major >= 9 { "a" } else { "" };
        let arch = CString::new(format!("--gpu-architecture=sm_{major}{minor}{suffix}")).unwrap();
        let cache = std::env::var_os("AMOEBA_OPS_CACHE").map(PathBuf::from);
        cache.iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
        let (modules, turn) = (Mutex::default(), Mutex::default());
        Device { driver, nvrtc, context: context as usize, arch, modules, turn, cache }
    }

    /// Makes the context that of this thread.
    fn enter(&self) {
        // SAFETY: the context retained in `open`, for ever.
        check("cuCtxSetCurrent", unsafe { (self.driver.cuCtxSetCurrent)(self.context as Handle) });
    }

    fn function(&self, call: &Call) -> Handle {
        let name = CString::new(call.kernel).unwrap();
        let mut function = ptr::null_mut();
        // SAFETY: a loaded module, a name that ends in zero; writes one handle.
        let found = unsafe {
            (self.driver.cuModuleGetFunction)(&raw mut function, self.module(&call.unit), name.as_ptr())
        };
        assert_eq!(found, 0, "no kernel {name:?} in {}", call.unit.op.0);
        function
    }

    fn module(&self, unit: &Unit) -> Handle {
        let known = || self.modules.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(module) = known().get(unit) {
            return *module as Handle;
        }
        let code = self.code(unit);
        let mut module = ptr::null_mut();
        // SAFETY: machine code as NVRTC made it; writes one handle. Modules are never unloaded.
        check("cuModuleLoadData", unsafe {
            (self.driver.cuModuleLoadData)(&raw mut module, code.as_ptr().cast())
        });
        known().insert(unit.clone(), module as usize);
        module
    }

    /// Machine code of a unit, compiled unless it was kept.
    fn code(&self, unit: &Unit) -> Vec<u8> {
        let Some(dir) = &self.cache else { return self.compile(unit) };
        let mut version = [0; 2];
        let [major, minor] = version.each_mut().map(ptr::from_mut);
        // SAFETY: writes two ints.
        check("nvrtcVersion", unsafe { (self.nvrtc.nvrtcVersion)(major, minor) });
        let mut hasher = DefaultHasher::new();
        (unit.source(), &self.arch, version).hash(&mut hasher);
        let path = dir.join(format!("{:016x}.cubin", hasher.finish()));
        std::fs::read(&path).unwrap_or_else(|_| {
            let code = self.compile(unit);
            // Others may be at the same unit, in threads and in processes: the last to finish wins.
            let own = format!("{}-{:?}", std::process::id(), std::thread::current().id());
            let own = path.with_extension(own);
            std::fs::write(&own, &code).and_then(|()| std::fs::rename(&own, &path)).unwrap();
            code
        })
    }

    fn compile(&self, unit: &Unit) -> Vec<u8> {
        let (source, name) = (CString::new(unit.source()).unwrap(), CString::new(unit.op.0).unwrap());
        let options = [self.arch.as_ptr(), c"--std=c++17".as_ptr()];
        let (mut program, mut len) = (ptr::null_mut(), 0);
        let none = ptr::null_mut();
        // SAFETY: strings that end in zero and live through the calls; sizes are asked for before bytes are
        // written.
        unsafe {
            let made = (self.nvrtc.nvrtcCreateProgram)(
                &raw mut program,
                source.as_ptr(),
                name.as_ptr(),
                0,
                none,
                none,
            );
            check("nvrtcCreateProgram", made);
            if (self.nvrtc.nvrtcCompileProgram)(program, 2, options.as_ptr()) != 0 {
                (self.nvrtc.nvrtcGetProgramLogSize)(program, &raw mut len);
                let mut log = vec![0_u8; len];
                (self.nvrtc.nvrtcGetProgramLog)(program, log.as_mut_ptr().cast());
                panic!("{:?} of {:?}:\n{}", unit.op.0, unit.defines, String::from_utf8_lossy(&log));
            }
            check("nvrtcGetCUBINSize", (self.nvrtc.nvrtcGetCUBINSize)(program, &raw mut len));
            let mut code = vec![0_u8; len];
            check("nvrtcGetCUBIN", (self.nvrtc.nvrtcGetCUBIN)(program, code.as_mut_ptr().cast()));
            code
        }
    }
}

fn check(what: &str, status: Status) {
    assert_eq!(status, 0, "{what}");
}
