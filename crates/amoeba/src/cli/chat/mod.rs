//! What one answer and a chat share: sampling settings, and an answer on its way to a screen.
mod answer;
mod settings;

pub use answer::{Printer, Screen, summary};
pub use settings::{SamplingArgs, Settings};
