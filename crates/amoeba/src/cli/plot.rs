//! Pictures of measured rows, from a run or from a file of one.
use std::path::Path;

use amoeba_harness::bench::{parse_rows, plots};
use amoeba_harness::plot::{HAS_PNG, write_pictures};
use serde_json::Value;

use super::console::{Console, print};
use super::failure::{self, Failure};

/// Reads rows from a file.
pub fn read_rows(file: &Path) -> Result<Vec<Value>, Failure> {
    let fault = |what: String| Failure::usage(format!("{}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| fault(format!("cannot be read: {error}")))?;
    parse_rows(&text).map_err(fault)
}

/// Draws the rows of a file into a folder.
pub fn from_file(file: &Path, dir: &Path, console: &Console) -> Result<(), Failure> {
    let rows = read_rows(file)?;
    check_folder(dir)?;
    if rows.is_empty() {
        return Err(Failure::usage(format!("{}: has no rows to draw", file.display())));
    }
    let written = draw(&rows, dir, console)?;
    print(&written.iter().map(|path| format!("{path}\n")).collect::<String>())
}

/// Makes the folder, so that a wrong name is told before everything is measured and not after.
pub fn check_folder(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::new(failure::FAILED, format!("{}: cannot be made: {error}", dir.display())))
}

/// Draws rows as `bench -o json` writes them into a folder; returns the files written.
pub fn draw(rows: &[Value], dir: &Path, console: &Console) -> Result<Vec<String>, Failure> {
    let plots = plots(rows);
    plots.notes.iter().for_each(|note| console.note(note));
    if !HAS_PNG {
        console.note(
            "only SVG is written: PNG needs a build with the feature `plot` (cargo build --features plot)",
        );
    }
    let mut written = Vec::new();
    for (name, picture) in &plots.pictures {
        let files = write_pictures(dir, name, &picture.svg());
        written.extend(files.map_err(|fault| Failure::new(failure::FAILED, fault))?);
    }
    Ok(written.iter().map(|path| path.display().to_string()).collect())
}
