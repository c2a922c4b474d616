//! Pictures: shapes written as SVG, which follows the reader's light or dark scheme.

pub mod axes;
mod svg;

use std::path::{Path, PathBuf};

/// What a shape is painted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// The background.
    Paper,
    /// Text and axes.
    Ink,
    /// Text that explains.
    Muted,
    /// Grid lines, under everything else.
    Grid,
    /// Data; after the last colour comes the first again.
    Series(usize),
}

/// Colours of paper, ink, muted and grid on light and on dark.
const SCHEMES: [[u32; 4]; 2] =
    [[0xffffff, 0x1f2328, 0x59636e, 0xd8dee4], [0x0d1117, 0xe6edf3, 0x9198a1, 0x30363d]];
/// Colours of series: each stands out from both papers (contrast of 3 and more, WCAG 2.1).
const SERIES: [u32; 10] =
    [0x2f81c7, 0xd9730d, 0x2a9d5c, 0xd64550, 0x9467d6, 0x1898a8, 0xc74f9b, 0x9c7a35, 0x78838f, 0x6f8f1f];

/// Which part of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// Right and down from the upper left corner, in units of the picture.
pub type Point = [f32; 2];

/// A picture; what comes later lies above.
#[derive(Clone, Debug)]
pub struct Picture {
    title: String,
    size: Point,
    /// Elements written so far.
    body: String,
}

impl Picture {
    /// The sign of series `n` in a chart: a shape in addition to a colour, for those who cannot tell colours.
    pub fn mark(&mut self, [x, y]: Point, n: usize) {
        let (r, paint) = (5.0, Paint::Series(n));
        match n % 4 {
            0 => self.circle([x, y], r, paint),
            1 => self.rect([x - 4.5, y - 4.5], [9.0, 9.0], paint),
            2 => self.polygon(&[[x, y - 6.5], [x + 6.5, y], [x, y + 6.5], [x - 6.5, y]], paint),
            _ => self.polygon(&[[x, y - 6.0], [x + 6.0, y + r], [x - 6.0, y + r]], paint),
        }
    }
}

/// Units that a text takes at most in usual sans-serif fonts, near enough for a layout.
pub fn text_width(text: &str, size: f32) -> f32 {
    let width = |c: char| match c {
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '—' => 0.9,
        'i' | 'j' | 'l' | '.' | ',' | ' ' | ':' | '·' | '(' | ')' | 'f' | 't' | 'r' | '/' => 0.38,
        'A'..='Z' => 0.69,
        _ => 0.59,
    };
    text.chars().map(width).sum::<f32>() * size
}

/// Writes `name.svg` into a folder, which is made if it is not there, and returns the path of the file.
///
/// # Errors
/// One line that says what could not be written.
pub fn write_picture(dir: &Path, name: &str, picture: &Picture) -> Result<PathBuf, String> {
    let path = dir.join(format!("{name}.svg"));
    let fault =
        |path: &Path, error: std::io::Error| format!("{}: cannot be written: {error}", path.display());
    std::fs::create_dir_all(dir).map_err(|error| fault(dir, error))?;
    std::fs::write(&path, picture.svg()).map_err(|error| fault(&path, error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, WCAG 2.1.
    fn luminance(colour: u32) -> f64 {
        let part = |shift: u32| {
            let c = f64::from(colour >> shift & 255) / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(16) + 0.7152 * part(8) + 0.0722 * part(0)
    }

    fn contrast(a: u32, b: u32) -> f64 {
        let [a, b] = [a, b].map(|colour| luminance(colour) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn everything_is_readable_on_light_and_on_dark() {
        for [paper, ink, muted, _] in SCHEMES {
            assert!(contrast(paper, ink) >= 7.0 && contrast(paper, muted) >= 4.5, "{paper:06x}");
            for colour in SERIES {
                let contrast = contrast(paper, colour);
                assert!(contrast >= 3.0, "{colour:06x} on {paper:06x}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_reported() {
        let fault = write_picture(Path::new("/dev/null/x"), "a", &Picture::new("", [1.0; 2])).unwrap_err();
        assert!(fault.starts_with("/dev/null/x: cannot be written"), "{fault}");
    }
}
