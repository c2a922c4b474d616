//! Writes a picture as SVG text.

use super::{Anchor, Paint, Picture, Point, SCHEMES, SERIES};

impl Picture {
    /// An empty picture of `size` units; the title is for those who cannot see it.
    pub fn new(title: &str, size: Point) -> Picture {
        Picture { title: title.to_owned(), size, body: String::new() }
    }

    /// A filled rectangle.
    pub fn rect(&mut self, [x, y]: Point, [width, height]: Point, paint: Paint) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        let fill = fill(paint);
        self.body += &format!("<rect {fill} x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>\n");
    }

    /// A filled polygon.
    pub fn polygon(&mut self, points: &[Point], paint: Paint) {
        self.body += &format!("<polygon {} points=\"{}\"/>\n", fill(paint), list(points));
    }

    /// A filled circle.
    pub fn circle(&mut self, [x, y]: Point, radius: f32, paint: Paint) {
        let [x, y, r] = [x, y, radius].map(number);
        self.body += &format!("<circle {} cx=\"{x}\" cy=\"{y}\" r=\"{r}\"/>\n", fill(paint));
    }

    /// Straight lines from point to point.
    pub fn line(&mut self, points: &[Point], paint: Paint, width: f32, dashed: bool) {
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let (class, width, points) = (class(paint), number(width), list(points));
        self.body += &format!(
            "<polyline class=\"{class}\" fill=\"none\" stroke=\"currentColor\" \
             stroke-width=\"{width}\"{dash} points=\"{points}\"/>\n"
        );
    }

    /// One line of text; `at` is on its base line.
    pub fn text(&mut self, [x, y]: Point, text: &str, size: f32, paint: Paint, anchor: Anchor) {
        if text.is_empty() {
            return;
        }
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let ([x, y, size], fill, text) = ([x, y, size].map(number), fill(paint), escaped(text));
        self.body += &format!(
            "<text {fill} x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>\n"
        );
    }

    /// The picture as an SVG document.
    pub fn svg(&self) -> String {
        let [width, height] = self.size.map(number);
        let (title, style, paper) = (escaped(&self.title), style(), fill(Paint::Paper));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n<style>{style}</style>\n\
             <rect {paper} width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
            self.body
        )
    }
}

fn style() -> String {
    let [light, dark] = SCHEMES.map(|colours| {
        let rule = |(name, colour)| format!(".{name}{{color:#{colour:06x}}}");
        ["paper", "ink", "muted", "grid"].into_iter().zip(colours).map(rule).collect::<String>()
    });
    let series: String =
        SERIES.iter().enumerate().map(|(n, colour)| format!(".s{n}{{color:#{colour:06x}}}")).collect();
    let font = "text{font-family:Roboto,Helvetica,Arial,sans-serif}";
    format!("{font}{light}{series}@media(prefers-color-scheme:dark){{{dark}}}")
}

fn class(paint: Paint) -> String {
    match paint {
        Paint::Paper => "paper".to_owned(),
        Paint::Ink => "ink".to_owned(),
        Paint::Muted => "muted".to_owned(),
        Paint::Grid => "grid".to_owned(),
        Paint::Series(n) => format!("s{}", n % SERIES.len()),
    }
}

fn fill(paint: Paint) -> String {
    format!("class=\"{}\" fill=\"currentColor\"", class(paint))
}

fn list(points: &[Point]) -> String {
    let pairs = points.iter().map(|[x, y]| format!("{},{}", number(*x), number(*y)));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Hundredths are finer than any screen.
fn number(x: f32) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// XML has no control characters.
fn escaped(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_xml_whatever_the_words() {
        let mut picture = Picture::new("a <b> & \"c\"\u{1}", [40.5, 20.0]);
        picture.text([1.0, 2.0], "x<y> & \"z\"\u{7}\n é", 9.0, Paint::Ink, Anchor::End);
        picture.line(&[[0.0, 0.0], [1.001, 2.5]], Paint::Series(11), 1.0, true);
        let svg = picture.svg();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let root = document.root_element();
        assert_eq!((root.tag_name().name(), root.attribute("width")), ("svg", Some("40.5")));
        let text = root.children().find(|node| node.has_tag_name("text")).unwrap();
        assert_eq!(text.text(), Some("x<y> & \"z\"   é"));
        let line = root.children().find(|node| node.has_tag_name("polyline")).unwrap();
        assert_eq!((line.attribute("points"), line.attribute("class")), (Some("0,0 1,2.5"), Some("s1")));
    }
}
