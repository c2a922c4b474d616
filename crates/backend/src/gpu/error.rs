//! What can go wrong before a model runs on a GPU.

use super::Fault;

/// Errors of loading a model on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Does not fit into the device's memory.
    #[error(
        "the model needs {} on {device} ({} weights, {} caches of {context} positions, {} buffers) and {} \
         are free: {} too few; take a smaller context (-c), --kv-cache f16, a smaller model, or --device cpu",
        size(.need.total()), size(.need.weights), size(.need.caches), size(.need.buffers), size(*.free),
        size(.need.total().saturating_sub(*.free))
    )]
    NoFit {
        /// The device's name.
        device: String,
        /// What is needed.
        need: Need,
        /// Bytes that can be had.
        free: usize,
        /// Positions reserved.
        context: usize,
    },
    /// Sizes that the model does not take.
    #[error(transparent)]
    Options(crate::Error),
    /// Activations that only CPUs round so.
    #[error("--activations {0} is not for a GPU, which has f32 and f16; choose one, or --device cpu")]
    Activations(crate::Activations),
    /// A program with an op that has no kernel.
    #[error("{0} is not built in for CUDA; run this model with --device cpu")]
    Unsupported(String),
    /// The kernels' compiler refuses: a bug.
    #[error(
        "the kernel {unit} does not compile for {arch}; this is a bug in amoeba, please report it with this \
         text:\n{log}"
    )]
    Compile {
        /// Which source.
        unit: String,
        /// For which architecture.
        arch: String,
        /// What the compiler said.
        log: String,
    },
    /// The driver failed.
    #[error("{what} failed on the GPU: {said}")]
    Driver {
        /// What was being done.
        what: &'static str,
        /// The driver's words.
        said: String,
    },
    /// Weights missing or misshapen.
    #[error(transparent)]
    Checkpoint(#[from] amoeba_checkpoint::Error),
}

impl Error {
    /// The driver failed while doing that.
    pub fn driver(what: &'static str) -> impl Fn(Fault) -> Error {
        move |Fault(said)| Error::Driver { what, said }
    }
}

/// Bytes of device memory that a model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Weights, as in the file.
    pub weights: usize,
    /// Keys and values, recurrent states.
    pub caches: usize,
    /// Activations and what kernels keep between launches.
    pub buffers: usize,
}

impl Need {
    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.caches + self.buffers
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_with_numbers() {
        let need = Need { weights: 17_000_000_000, caches: 800_000_000, buffers: 1_200_000 };
        let error =
            Error::NoFit { device: "cuda:0 (H)".to_owned(), need, free: 17_000_000_000, context: 8192 };
        let said = error.to_string();
        for part in [
            "17.8 GB on cuda:0 (H)",
            "17.0 GB weights",
            "800 MB caches of 8192 positions",
            "1.2 MB buffers",
            "801 MB too few",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
