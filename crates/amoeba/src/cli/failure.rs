//! Exit codes, and how every error of the libraries becomes one.
use std::fmt::Display;

use amoeba_checkpoint::ErrorKind;

/// Anything else, or a difference that `verify` or `gate` found.
pub const FAILED: u8 = 1;
/// Wrong flags or arguments.
pub const USAGE: u8 = 2;
/// No such model here.
pub const NOT_FOUND: u8 = 3;
/// Not enough memory.
pub const NO_FIT: u8 = 4;
/// The device refused or computed nonsense.
pub const DEVICE: u8 = 5;
/// Damaged or unsupported files.
pub const CORRUPT: u8 = 6;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// How the program ends when not well. An empty message ends it quietly.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What, where, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with that exit code.
    pub fn new(code: u8, message: impl Display) -> Failure {
        Failure { code, message: message.to_string() }
    }

    /// Wrong usage.
    pub fn usage(message: impl Display) -> Failure {
        Failure::new(USAGE, message)
    }

    /// The user pressed Ctrl-C.
    pub fn interrupted() -> Failure {
        Failure::new(INTERRUPTED, "")
    }
}

/// Writing to standard output failed; a reader that went away (`| head`) is not an error.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::new(0, ""),
            _ => Failure::new(FAILED, format!("cannot write the output: {error}")),
        }
    }
}

fn checkpoint_code(error: &amoeba_checkpoint::Error) -> u8 {
    match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::Io => FAILED,
        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Config => CORRUPT,
    }
}

fn plan_code(error: &amoeba_plan::Error) -> u8 {
    match error {
        amoeba_plan::Error::Checkpoint(error) => checkpoint_code(error),
        _ => CORRUPT,
    }
}

fn text_code(error: &amoeba_text::Error) -> u8 {
    use amoeba_text::Error;
    match error {
        Error::EmptyStop(_) | Error::Chat(_) => USAGE,
        Error::Template { raised: true, .. } => USAGE,
        Error::Stopped => INTERRUPTED,
        Error::Encode(_) | Error::Thread(_) => FAILED,
        Error::File(error) => checkpoint_code(error),
        _ => CORRUPT,
    }
}

fn backend_code(error: &amoeba_backend::Error) -> u8 {
    use amoeba_backend::Error;
    match error {
        Error::Checkpoint(error) => checkpoint_code(error),
        Error::Plan(error) => plan_code(error),
        Error::Activations { .. } | Error::Context { .. } => USAGE,
        Error::UnknownToken { .. } => CORRUPT,
        _ => DEVICE,
    }
}

fn cuda_code(error: &amoeba_engine::cuda::Error) -> u8 {
    use amoeba_backend::gpu::Error;
    let amoeba_engine::cuda::Error::Gpu(error) = error else { return DEVICE };
    match error {
        Error::Checkpoint(error) => checkpoint_code(error),
        Error::NoFit { .. } => NO_FIT,
        Error::Options(error) => backend_code(error),
        Error::Activations(_) => USAGE,
        _ => DEVICE,
    }
}

fn engine_code(error: &amoeba_engine::Error) -> u8 {
    use amoeba_engine::Error;
    match error {
        Error::Checkpoint(error) => checkpoint_code(error),
        Error::Plan(error) => plan_code(error),
        Error::Backend(error) => backend_code(error),
        Error::Text(error) => text_code(error),
        Error::Cuda(error) => cuda_code(error),
        _ => USAGE,
    }
}

fn hub_code(error: &amoeba_hub::Error) -> u8 {
    use amoeba_hub::Error;
    match error {
        Error::BadName { .. }
        | Error::NotFound { .. }
        | Error::Incomplete { .. }
        | Error::Offline { .. }
        | Error::Unauthorized { .. }
        | Error::Forbidden { .. }
        | Error::NoSuchModel { .. } => NOT_FOUND,
        Error::DiskFull { .. } => NO_FIT,
        Error::Checksum { .. } | Error::NotAModel { .. } => CORRUPT,
        _ => FAILED,
    }
}

fn library_code(error: &amoeba::Error) -> u8 {
    match error {
        amoeba::Error::Hub(error) => hub_code(error),
        amoeba::Error::Engine(error) => engine_code(error),
        _ => NOT_FOUND,
    }
}

fn harness_code(error: &amoeba_harness::Error) -> u8 {
    use amoeba_harness::Error;
    match error {
        Error::Checkpoint(error) => checkpoint_code(error),
        Error::Engine(error) => engine_code(error),
        Error::Backend(error) => backend_code(error),
        Error::Plan(error) => plan_code(error),
        Error::NoFixture(_) => NOT_FOUND,
        Error::Record(_) => CORRUPT,
        Error::Hidden { .. } => DEVICE,
        Error::Unwritable(_) => FAILED,
        Error::TooShort(_)
        | Error::Dump(_)
        | Error::Baseline(_)
        | Error::Unreadable(_)
        | Error::Foreign(_) => USAGE,
    }
}

macro_rules! from {
    ($($error:ty => $code:ident;)*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                match $code(&error) {
                    INTERRUPTED => Failure::interrupted(),
                    code => Failure::new(code, error),
                }
            }
        })*
    };
}

from! {
    amoeba_checkpoint::Error => checkpoint_code;
    amoeba_plan::Error => plan_code;
    amoeba_text::Error => text_code;
    amoeba_backend::Error => backend_code;
    amoeba_engine::Error => engine_code;
    amoeba_hub::Error => hub_code;
    amoeba_harness::Error => harness_code;
    amoeba::Error => library_code;
}
