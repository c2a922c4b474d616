//! Ctrl-C: ends a running answer, and the program when no answer runs or when it comes twice.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::{self, Failure};

/// The one handler of the process.
pub struct Interrupt {
    /// Set by Ctrl-C. Ctrl-C while it is set ends the program, so it is set whenever no answer runs.
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over Ctrl-C. Until [`Interrupt::arm`], it ends the program.
    pub fn install() -> Result<Interrupt, Failure> {
        use signal_hook::consts::SIGINT;
        let flag = Arc::new(AtomicBool::new(true));
        let code = i32::from(failure::INTERRUPTED);
        // Order matters: the second action must not be seen by the first in the same signal.
        signal_hook::flag::register_conditional_shutdown(SIGINT, code, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&flag)))
            .map_err(|error| Failure::new(failure::FAILED, format!("cannot listen to Ctrl-C: {error}")))?;
        Ok(Interrupt { flag })
    }

    /// One that no signal reaches.
    #[cfg(test)]
    pub fn deaf() -> Interrupt {
        Interrupt { flag: Arc::new(AtomicBool::new(true)) }
    }

    /// An answer begins: the next Ctrl-C sets this flag.
    pub fn arm(&self) -> Arc<AtomicBool> {
        self.flag.store(false, Ordering::SeqCst);
        Arc::clone(&self.flag)
    }

    /// The answer has ended: whether by Ctrl-C.
    pub fn disarm(&self) -> bool {
        self.flag.swap(true, Ordering::SeqCst)
    }
}
