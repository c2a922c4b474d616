//! Axes of a chart: scales, ticks, grid, titles, legend.

use super::{Anchor, Paint, Picture, Point, text_width};

/// Size of small and of large text.
pub const TEXT: [f32; 2] = [12.0, 16.0];

/// A scale with its name.
#[derive(Clone, Debug)]
pub struct Axis {
    name: String,
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    /// From zero to a round number that is not below `most`.
    pub fn linear(name: &str, most: f64) -> Axis {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(most);
        Axis { name: name.to_owned(), from: 0.0, to: (most / step).ceil().max(1.0) * step, log: false }
    }

    /// Logarithmic, from a round number (1, 2 or 5 times a power of ten) below all values to one above.
    pub fn log(name: &str, values: impl Iterator<Item = f64>) -> Axis {
        let (least, most) = values
            .filter(|x| *x > 0.0 && x.is_finite())
            .fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(x), b.max(x)));
        let (least, most) = if most > 0.0 { (least, most) } else { (1.0, 1.0) };
        let round = || (-12..18).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        let from = round().rfind(|x| *x < least * 0.9).unwrap_or(least / 2.0);
        let to = round().find(|x| *x > most * 1.1).unwrap_or(most * 2.0);
        Axis { name: name.to_owned(), from, to, log: true }
    }

    /// No scale: nothing is marked, everything is at 0.
    pub fn none() -> Axis {
        Axis { name: String::new(), from: 0.0, to: f64::INFINITY, log: false }
    }

    /// Its two ends.
    pub fn ends(&self) -> [f64; 2] {
        [self.from, self.to]
    }

    /// Marked values.
    pub fn ticks(&self) -> Vec<f64> {
        if self.to.is_infinite() {
            return Vec::new();
        }
        if !self.log {
            let step = step(self.to);
            return (0..).map(|i| f64::from(i) * step).take_while(|x| *x <= self.to * (1.0 + 1e-9)).collect();
        }
        let digits: &[f64] = if self.to / self.from > 2e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = (-12..18).flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        all.filter(|x| *x >= self.from * 0.999 && *x <= self.to * 1.001).collect()
    }

    /// How far along the axis a value is, 0 to 1; beyond it for values outside.
    fn share(&self, value: f64) -> f32 {
        let place = |x: f64| if self.log { x.ln() } else { x };
        ((place(value) - place(self.from)) / (place(self.to) - place(self.from))) as f32
    }
}

/// 1, 2 or 5 times a power of ten, so that four to ten of them make `most`.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 4.0).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|digit| digit * power).find(|step| most / step >= 4.0).unwrap_or(power)
}

/// A number as ticks and labels have it: three digits, thousands as k.
pub fn short(x: f64) -> String {
    let [x, end] = if x >= 1e4 { [x / 1e3, 1.0] } else { [x, 0.0] };
    let digits =
        if x >= 99.95 || x == 0.0 { 0 } else { (2 - x.abs().log10().floor() as i32).max(0) as usize };
    let text = format!("{x:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", if end > 0.0 { "k" } else { "" })
}

/// A chart's plane, with the axes drawn.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Left, top, right, bottom.
    pub area: [f32; 4],
    x: Axis,
    y: Axis,
}

impl Frame {
    /// Draws title, note, grid, ticks and names of axes into the `area` (left, top, right, bottom).
    pub fn new(picture: &mut Picture, area: [f32; 4], x: Axis, y: Axis) -> Frame {
        let frame = Frame { area, x, y };
        let [left, top, right, bottom] = area;
        for tick in frame.x.ticks() {
            let at = frame.at(tick, frame.y.from)[0];
            picture.line(&[[at, top], [at, bottom]], Paint::Grid, 1.0, false);
            picture.text([at, bottom + 17.0], &short(tick), TEXT[0], Paint::Muted, Anchor::Middle);
        }
        for tick in frame.y.ticks() {
            let at = frame.at(frame.x.from, tick)[1];
            picture.line(&[[left, at], [right, at]], Paint::Grid, 1.0, false);
            picture.text([left - 7.0, at + 4.0], &short(tick), TEXT[0], Paint::Muted, Anchor::End);
        }
        picture.line(&[[left, top], [left, bottom], [right, bottom]], Paint::Ink, 1.0, false);
        let middle = (left + right) / 2.0;
        picture.text([middle, bottom + 38.0], &frame.x.name, TEXT[0], Paint::Ink, Anchor::Middle);
        picture.text([left - 40.0, top - 12.0], &frame.y.name, TEXT[0], Paint::Ink, Anchor::Start);
        frame
    }

    /// Where a pair of values is.
    pub fn at(&self, x: f64, y: f64) -> Point {
        let [left, top, right, bottom] = self.area;
        [left + (right - left) * self.x.share(x), bottom - (bottom - top) * self.y.share(y)]
    }
}

/// Writes what the picture shows above it: a title and, muted, what to know.
pub fn heading(picture: &mut Picture, title: &str, note: &str) {
    let left = 20.0;
    picture.text([left, 28.0], title, TEXT[1], Paint::Ink, Anchor::Start);
    picture.text([left, 48.0], note, TEXT[0], Paint::Muted, Anchor::Start);
}

/// Units between lines of a legend.
const LINE: f32 = 20.0;

/// Lists series from `at` downwards, with their marks or as squares.
pub fn legend(picture: &mut Picture, [x, y]: Point, entries: &[(usize, String)], marks: bool) {
    for (line, (series, text)) in entries.iter().enumerate() {
        let y = y + line as f32 * LINE;
        if marks {
            picture.mark([x, y - 4.0], *series);
        } else {
            picture.rect([x - 5.0, y - 9.0], [10.0, 10.0], Paint::Series(*series));
        }
        picture.text([x + 14.0, y], text, TEXT[0], Paint::Ink, Anchor::Start);
    }
}

/// Units that a legend takes: width and height.
pub fn legend_size(entries: &[(usize, String)]) -> Point {
    let width = entries.iter().map(|(_, text)| text_width(text, TEXT[0])).fold(0.0, f32::max);
    [width + 24.0, entries.len() as f32 * LINE]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let labels = |axis: Axis| axis.ticks().into_iter().map(short).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(Axis::linear("", 83.0)), "0 20 40 60 80 100");
        assert_eq!(labels(Axis::linear("", 4096.0)), "0 1000 2000 3000 4000 5000");
        assert_eq!(labels(Axis::linear("", 0.0)), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(labels(Axis::linear("", 20_000.0)), "0 5000 10k 15k 20k");
        assert_eq!(labels(Axis::log("", [3.0, 40.0].into_iter())), "2 5 10 20 50");
        assert_eq!(labels(Axis::log("", [0.3, 9000.0].into_iter())), "1 10 100 1000 10k");
        assert_eq!(labels(Axis::log("", [f64::NAN, 0.0].into_iter())), "0.5 1 2");
        assert_eq!(
            [0.0, 0.123_4, 5.0, 12.34, 99.96, 1234.0, 12_345.0].map(short).join(" "),
            "0 0.123 5 12.3 100 1234 12.3k"
        );
    }

    #[test]
    fn larger_values_are_further_right_and_further_up() {
        let mut picture = Picture::new("", [100.0; 2]);
        let axis = || Axis::log("", [1.0, 100.0].into_iter());
        let frame = Frame::new(&mut picture, [10.0, 10.0, 90.0, 90.0], axis(), axis());
        let ([x0, y0], [x1, y1]) = (frame.at(1.0, 1.0), frame.at(100.0, 100.0));
        assert!(10.0 < x0 && x0 < x1 && x1 < 90.0 && 90.0 > y0 && y0 > y1 && y1 > 10.0);
    }
}
