//! Paints the SVG that this program writes as PNG: `rect`, `polygon`, `polyline`, `circle` and `text` right under the
//! root, lengths as numbers or in %, colours as `#rrggbb` or as the class of a [`Paint`] on the light scheme. No group,
//! no transformation, no other element: those are errors, so that nothing goes missing in silence.

use roxmltree::{Document, Node};
use tiny_skia::{Color, FillRule, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform};
use ttf_parser::{Face, OutlineBuilder};

use super::{SCHEMES, SERIES};

/// Pixels a unit.
const SCALE: f32 = 2.0;
const FONT: &[u8] = include_bytes!("roboto.ttf");

/// The picture as a PNG file, on white, two pixels a unit.
///
/// # Errors
/// What of the SVG is not of the kind above, or that it is too large for memory.
pub fn png(svg: &str) -> Result<Vec<u8>, String> {
    let document = Document::parse(svg).map_err(|error| format!("the SVG is damaged: {error}"))?;
    let root = document.root_element();
    let size = [length(root, "width", 0.0)?, length(root, "height", 0.0)?];
    let [width, height] = size.map(|units| (units * SCALE).ceil() as u32);
    let mut canvas = Canvas {
        map: Pixmap::new(width, height)
            .ok_or_else(|| format!("a picture of {width} × {height} pixels cannot be painted"))?,
        face: Face::parse(FONT, 0)
            .map_err(|error| format!("the font of this program is damaged: {error}"))?,
        size,
    };
    canvas.map.fill(Color::WHITE);
    root.children().filter(Node::is_element).try_for_each(|node| canvas.paint(node))?;
    canvas.map.encode_png().map_err(|error| format!("a picture cannot be written as PNG: {error}"))
}

/// A number, or a percentage of `whole`; 0 if it is not there.
fn length(node: Node<'_, '_>, name: &str, whole: f32) -> Result<f32, String> {
    let Some(text) = node.attribute(name) else { return Ok(0.0) };
    let (text, unit) = text.strip_suffix('%').map_or((text, 1.0), |share| (share, whole / 100.0));
    let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
    number.map(|number| number * unit).ok_or_else(|| fault(node, name))
}

fn fault(node: Node<'_, '_>, name: &str) -> String {
    let (tag, value) = (node.tag_name().name(), node.attribute(name).unwrap_or_default());
    format!("<{tag} {name}=\"{value}\"> of an SVG cannot be painted")
}

/// The colour of `fill` or `stroke`; `None` for none.
fn colour(node: Node<'_, '_>, name: &str) -> Result<Option<Color>, String> {
    let rgb = match node.attribute(name) {
        None | Some("none") => return Ok(None),
        Some("currentColor") => node.attribute("class").and_then(|class| {
            let plain = ["paper", "ink", "muted", "grid"].iter().position(|known| *known == class);
            let series = || SERIES.get(class.strip_prefix('s')?.parse::<usize>().ok()?).copied();
            plain.map(|index| SCHEMES[0][index]).or_else(series)
        }),
        Some(text) => text
            .strip_prefix('#')
            .filter(|digits| digits.len() == 6)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok()),
    };
    let [_, r, g, b] = rgb.ok_or_else(|| fault(node, name))?.to_be_bytes();
    Ok(Some(Color::from_rgba8(r, g, b, 255)))
}

fn path(node: Node<'_, '_>) -> Result<PathBuilder, String> {
    let mut builder = PathBuilder::new();
    let numbers =
        node.attribute("points").unwrap_or_default().split([' ', ',']).filter(|text| !text.is_empty());
    let numbers: Vec<f32> =
        numbers.map(str::parse).collect::<Result<_, _>>().map_err(|_| fault(node, "points"))?;
    for (index, [x, y]) in numbers.as_chunks::<2>().0.iter().enumerate() {
        if index == 0 { builder.move_to(*x, *y) } else { builder.line_to(*x, *y) }
    }
    Ok(builder)
}

struct Canvas<'a> {
    map: Pixmap,
    face: Face<'a>,
    /// Units.
    size: [f32; 2],
}

impl Canvas<'_> {
    /// Shapes without extent are left out, as a viewer does.
    fn paint(&mut self, node: Node<'_, '_>) -> Result<(), String> {
        let across = |name| length(node, name, self.size[0]);
        let down = |name| length(node, name, self.size[1]);
        let shape = match node.tag_name().name() {
            "title" | "style" => return Ok(()),
            "rect" => {
                let rect =
                    tiny_skia::Rect::from_xywh(across("x")?, down("y")?, across("width")?, down("height")?);
                rect.map(PathBuilder::from_rect)
            }
            "circle" => PathBuilder::from_circle(across("cx")?, down("cy")?, across("r")?),
            "polygon" => {
                let mut builder = path(node)?;
                builder.close();
                builder.finish()
            }
            "polyline" => path(node)?.finish(),
            "text" => self.glyphs(node, [across("x")?, down("y")?])?,
            other => return Err(format!("<{other}> of an SVG cannot be painted")),
        };
        let scale = Transform::from_scale(SCALE, SCALE);
        let mut brush = tiny_skia::Paint::default();
        let Some(shape) = shape else { return Ok(()) };
        if let Some(colour) = colour(node, "fill")? {
            brush.set_color(colour);
            self.map.fill_path(&shape, &brush, FillRule::Winding, scale, None);
        }
        if let Some(colour) = colour(node, "stroke")? {
            brush.set_color(colour);
            let dash = node.has_attribute("stroke-dasharray").then(|| StrokeDash::new(vec![5.0, 4.0], 0.0));
            let stroke = Stroke { width: across("stroke-width")?, dash: dash.flatten(), ..Stroke::default() };
            self.map.stroke_path(&shape, &brush, &stroke, scale, None);
        }
        Ok(())
    }

    /// The glyphs of a text as one path. Characters that the font lacks become its empty box.
    fn glyphs(&self, node: Node<'_, '_>, at: [f32; 2]) -> Result<Option<Path>, String> {
        let scale = length(node, "font-size", 0.0)? / f32::from(self.face.units_per_em());
        let text = node.text().unwrap_or_default();
        let glyphs: Vec<_> = text.chars().map(|c| self.face.glyph_index(c).unwrap_or_default()).collect();
        let advance = |glyph| f32::from(self.face.glyph_hor_advance(glyph).unwrap_or(0)) * scale;
        let width: f32 = glyphs.iter().map(|glyph| advance(*glyph)).sum();
        let left = match node.attribute("text-anchor") {
            None | Some("start") => at[0],
            Some("middle") => at[0] - width / 2.0,
            Some("end") => at[0] - width,
            Some(_) => return Err(fault(node, "text-anchor")),
        };
        let mut pen = Pen { builder: PathBuilder::new(), at: [left, at[1]], scale };
        for glyph in glyphs {
            self.face.outline_glyph(glyph, &mut pen);
            pen.at[0] += advance(glyph);
        }
        Ok(pen.builder.finish())
    }
}

/// Puts glyphs, which are drawn upwards in units of the font, onto the picture.
struct Pen {
    builder: PathBuilder,
    at: [f32; 2],
    scale: f32,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (self.at[0] + x * self.scale, self.at[1] - y * self.scale)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.builder.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.builder.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.builder.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.builder.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.builder.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Anchor, Paint, Picture, text_width};

    #[test]
    fn a_png_has_the_size_and_the_shapes() {
        let mut picture = Picture::new("", [30.0, 20.0]);
        picture.rect([10.0, 5.0], [4.0, 2.0], Paint::Series(0));
        picture.line(&[[0.0, 15.0], [30.0, 15.0]], Paint::Grid, 1.0, true);
        picture.text([20.0, 12.0], "I", 10.0, Paint::Ink, Anchor::Middle);
        picture.polygon(&[], Paint::Series(3));
        let map = Pixmap::decode_png(&png(&picture.svg()).unwrap()).unwrap();
        assert_eq!((map.width(), map.height()), (60, 40));
        let count = |rgb: u32| {
            let [_, r, g, b] = rgb.to_be_bytes();
            map.pixels().iter().filter(|p| [p.red(), p.green(), p.blue()] == [r, g, b]).count()
        };
        let found = [SERIES[0], SCHEMES[0][3], SCHEMES[0][1], SERIES[3]].map(count);
        assert!(
            found[0] == 32 && (50..120).contains(&found[1]) && found[2] > 5 && found[3] == 0,
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_painted_is_told() {
        let told = |body: &str| png(&format!("<svg width=\"9\" height=\"9\">{body}</svg>")).unwrap_err();
        assert_eq!(told("<g/>"), "<g> of an SVG cannot be painted");
        assert_eq!(
            told("<rect width='50%' height='1e'/>"),
            "<rect height=\"1e\"> of an SVG cannot be painted"
        );
        assert_eq!(told("<circle r='3' fill='red'/>"), "<circle fill=\"red\"> of an SVG cannot be painted");
        assert!(told("<polyline points='1,x'/>").contains("points=\"1,x\"") && told("<").contains("damaged"));
        assert!(told("<text text-anchor='left'>x</text>").contains("text-anchor=\"left\""));
        assert!(png("<svg/>").unwrap_err().contains("0 × 0 pixels"));
        let plain = "<svg width='9' height='9'><rect width='100%' height='50%' fill='#ff0000'/></svg>";
        let map = Pixmap::decode_png(&png(plain).unwrap()).unwrap();
        assert_eq!(map.pixels().iter().filter(|pixel| pixel.green() == 0).count(), 18 * 9);
    }

    #[test]
    fn texts_are_no_wider_than_the_layout_believes() {
        let face = Face::parse(FONT, 0).unwrap();
        for text in
            ["experts", "tg128x4@1000, 16 threads", "AVX512+AMX", "GB/s · 78 %", "1,234.5 µs", "unfused"]
        {
            let advance = |c| face.glyph_hor_advance(face.glyph_index(c).unwrap()).unwrap();
            let real = text.chars().map(|c| f32::from(advance(c))).sum::<f32>() * 12.0
                / f32::from(face.units_per_em());
            let believed = text_width(text, 12.0);
            assert!(real <= believed && believed < 1.5 * real, "{text}: {real} {believed}");
        }
    }
}
