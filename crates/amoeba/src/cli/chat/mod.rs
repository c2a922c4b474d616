//! What one answer and a chat share: sampling settings, and an answer on its way to a screen.
mod answer;
mod reasoning;
mod settings;

pub use answer::{Printer, Screen, summary};
pub use reasoning::{Reasoning, TemplateArgs};
pub use settings::{SamplingArgs, Settings};
