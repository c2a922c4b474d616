//! The file of `--tools`.
use std::fs::File;
use std::io::Read;
use std::path::Path;

use amoeba::{Model, Tools};
use serde_json::Value;

use crate::cli::failure::Failure;

/// Largest file of tools, in bytes.
const TOOLS_BYTES_MAX: u64 = 1 << 20;

/// Reads and checks a list of tools.
pub fn read(path: &Path) -> Result<Value, Failure> {
    let wrong = |reason: String| Failure::usage(format!("--tools {}: {reason}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| wrong(format!("cannot read it: {error}")))?;
    let read = file.take(TOOLS_BYTES_MAX + 1).read_to_string(&mut text);
    let length = read.map_err(|error| wrong(format!("cannot read it: {error}")))?;
    if length as u64 > TOOLS_BYTES_MAX {
        return Err(wrong(format!("it has more than {TOOLS_BYTES_MAX} bytes: describe fewer tools")));
    }
    let tools = serde_json::from_str(&text).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
    Tools::check(&tools).map_err(|error| wrong(error.to_string()))?;
    Ok(tools)
}

/// Refuses tools if the model's chat template would not show them.
pub fn check(model: &Model) -> Result<(), Failure> {
    match model.template() {
        Some(template) if !template.takes_tools() => {
            Err(Failure::usage("the chat template of this model knows no tools: leave --tools out"))
        }
        _ => Ok(()),
    }
}
