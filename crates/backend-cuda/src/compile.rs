//! From a unit's source to machine code for one device, through the cache of compiled kernels.

use std::sync::Mutex;

use amoeba_kernels::cuda::trace::TRACED;
use amoeba_kernels::gpu::Unit;

use amoeba_backend::gpu::Error;

use crate::cache::{Kept, key};
use crate::sys::Nvrtc;

/// Compiles for one architecture.
#[derive(Clone)]
pub struct Compiler {
    /// The compiler.
    pub nvrtc: Nvrtc,
    /// Such as "sm_90a".
    pub arch: String,
    /// Where code is kept; `None` for nowhere.
    pub cache: Option<Kept>,
}

impl Compiler {
    /// Machine code of every unit, in their order, with several threads; of kernels that stamp their times if
    /// `traced`. `notice` is called with the reason why code cannot be kept.
    ///
    /// # Errors
    /// The first unit that does not compile.
    pub fn all(&self, units: &[&Unit], traced: bool, notice: fn(&str)) -> Result<Vec<Vec<u8>>, Error> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(units.len());
        let codes = Mutex::new(units.iter().map(|_| None).collect::<Vec<_>>());
        let next = Mutex::new(0..units.len());
        let work = || {
            while let Some(index) = next.lock().ok().and_then(|mut next| next.next()) {
                let code = self.one(units[index], traced, notice);
                if let (Err(_), Ok(mut next)) = (&code, next.lock()) {
                    *next = 0..0; // nothing more is needed
                }
                if let Ok(mut codes) = codes.lock() {
                    codes[index] = Some(code);
                }
            }
        };
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| {
                scope.spawn(work);
            })
        });
        let codes = codes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Those that were not begun come after one that failed, or none did.
        codes.into_iter().flatten().collect()
    }

    fn one(&self, unit: &Unit, traced: bool, notice: fn(&str)) -> Result<Vec<u8>, Error> {
        let (source, options) = (unit.source(), self.options(traced));
        let version = self.nvrtc.version();
        let parts: Vec<&str> =
            [&*source, &*version].into_iter().chain(options.iter().map(|o| &**o)).collect();
        let key = key(&parts);
        if let Some(code) = self.cache.as_ref().and_then(|cache| cache.load(&key)) {
            return Ok(code);
        }
        let compiled = self.nvrtc.compile(unit.op.0, &source, &options);
        let code = compiled.map_err(|log| Error::Compile {
            unit: unit.op.0.to_owned(),
            arch: self.arch.clone(),
            log,
        })?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.store(&key, &code)
        {
            notice(&format!("compiled kernels are not kept in {}: {error}", cache.0.dir.display()));
        }
        Ok(code)
    }

    fn options(&self, traced: bool) -> Vec<String> {
        let options = [format!("--gpu-architecture={}", self.arch), "--std=c++17".to_owned()];
        options.into_iter().chain(traced.then(|| format!("--define-macro={TRACED}"))).collect()
    }
}
