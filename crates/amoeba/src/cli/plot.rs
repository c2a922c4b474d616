//! Pictures of measured rows, from a run or from a file of one.
use std::path::Path;

use amoeba_harness::bench::{BenchRow, plots};
use amoeba_harness::plot::write_picture;

use super::console::{Console, print};
use super::failure::{self, Failure};
use super::files::read_rows;

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

/// Makes the folder, so that a wrong name is reported before everything is measured and not after.
pub fn check_folder(dir: &Path) -> Result<(), Failure> {
    if dir.extension().is_some_and(|end| ["png", "svg"].iter().any(|file| end.eq_ignore_ascii_case(file))) {
        return Err(Failure::usage(format!(
            "{}: name a folder; each picture in it becomes a file of its own, which ends in .svg",
            dir.display()
        )));
    }
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::new(failure::FAILED, format!("{}: cannot be made: {error}", dir.display())))
}

/// Draws rows into a folder; returns the files written.
pub fn draw(rows: &[BenchRow], dir: &Path, console: &Console) -> Result<Vec<String>, Failure> {
    let plots = plots(rows);
    plots.notes.iter().for_each(|note| console.note(note));
    let write = |(name, picture): &(String, _)| {
        let written = write_picture(dir, name, picture);
        written.map_or_else(
            |fault| Err(Failure::new(failure::FAILED, fault)),
            |path| Ok(path.display().to_string()),
        )
    };
    plots.pictures.iter().map(write).collect()
}
