//! Standard output for answers, standard error for everything else; how numbers look.
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;

use super::failure::Failure;

/// What may be shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    quiet: bool,
    colour: bool,
    terminal: bool,
}

impl Console {
    /// Looks at the flags and at the environment.
    pub fn new(quiet: bool, no_colour: bool) -> Console {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal = stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Console { quiet, colour: terminal && !no_colour && !set("NO_COLOR") && !dumb, terminal }
    }

    /// Whether only answers and errors are wanted.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether moving progress bars may be drawn.
    pub fn animated(&self) -> bool {
        self.terminal && !self.quiet
    }

    /// The text in grey, where colours are wanted.
    pub fn grey(&self, text: &str) -> String {
        if self.colour { format!("\x1b[90m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line of its own in grey, unless quiet.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            say(&format!("{}\n", self.grey(text)));
        }
    }

    /// An error; nothing for an empty text.
    pub fn error(&self, text: &str) {
        if !text.is_empty() {
            let word = if self.colour { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
            say(&format!("{word} {text}\n"));
        }
    }
}

/// Writes to standard error; a failure of that has nowhere to be reported.
pub fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// Writes to standard output at once.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes JSON for people and programs.
pub fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// `16.7 MB`, in steps of a thousand.
pub fn bytes(n: impl TryInto<u64>) -> String {
    scaled(n.try_into().unwrap_or(u64::MAX), &["B", "kB", "MB", "GB", "TB"])
}

/// `29.5 M`, in steps of a thousand.
pub fn count(n: impl TryInto<u64>) -> String {
    scaled(n.try_into().unwrap_or(u64::MAX), &["", "k", "M", "B", "T"]).trim_end().to_owned()
}

fn scaled(n: u64, units: &[&str]) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.digits$} {}", units[unit])
}

/// Tokens per second; a dash when there is nothing to divide.
pub fn rate(tokens: usize, time: Duration) -> String {
    match tokens as f64 / time.as_secs_f64() {
        rate if tokens == 0 || !rate.is_finite() => "–".to_owned(),
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// `18 ms` or `2.3 s`.
pub fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// Lines of columns, each as wide as its widest cell; the first column stands left, `right` says which others
/// stand right.
pub fn table<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            line += "  ";
            line += &if right[column] { pad + cell } else { format!("{cell}{pad}") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// One row of a [`table`].
pub fn row<const N: usize>(cells: [&dyn Display; N]) -> [String; N] {
    cells.map(|cell| cell.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([bytes(0_u64), bytes(999_u64), bytes(1000_u64)], ["0 B", "999 B", "1.0 kB"]);
        assert_eq!([bytes(16_712_000_u64), bytes(u64::MAX)], ["16.7 MB", "18446744 TB"]);
        assert_eq!([count(29_500_000_u64), count(12_u64), count(999_600_u64)], ["29.5 M", "12", "1.0 M"]);
        assert_eq!(rate(10, Duration::from_millis(100)), "100");
        assert_eq!([rate(0, Duration::ZERO), rate(3, Duration::ZERO)], ["–", "–"]);
        assert_eq!([time(Duration::from_millis(18)), time(Duration::from_millis(2345))], ["18 ms", "2.3 s"]);
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [row([&"a", &1]), row([&"bcd", &23])];
        assert_eq!(table(&rows, [false, true]), "  a     1\n  bcd  23\n");
    }
}
