//! Pictures of rows as `bench -o json` writes them: roofline per op, tokens per second against depth, time
//! per op.
//!
//! They are drawn from the JSON alone, so a saved file gives the pictures that the run itself gives.

use serde_json::Value;

use crate::plot::axes::{Axis, Frame, TEXT, heading, legend, legend_size, short};
use crate::plot::{Anchor, Paint, Picture, Point, text_width};

/// What can be drawn of some rows.
#[derive(Clone, Debug, Default)]
pub struct Plots {
    /// Pictures with names that files can have.
    pub pictures: Vec<(String, Picture)>,
    /// One line for each kind of picture that the rows do not give, with what is missing.
    pub notes: Vec<String>,
}

/// Series with colours of their own; what takes least time is put together.
const SERIES: usize = 9;
/// Width of every picture, and the height of one with a plane.
const SIZE: Point = [960.0, 540.0];

/// Draws what rows give ([`super::parse_rows`] reads them).
pub fn plots(rows: &[Value]) -> Plots {
    let mut plots = Plots::default();
    for row in rows.iter().filter(|row| row["op_times"].is_object()) {
        let name = format!("roofline-{}-t{}", row["test"].as_str().unwrap_or_default(), row["threads"]);
        plots.add(&name, roofline(row));
    }
    if plots.pictures.is_empty() {
        let what = "no roofline: no row has both op_times and the floor; a CPU writes them (`bench -o json`)";
        plots.notes.push(what.to_owned());
    }
    let kinds = ["decode", "prefill"].map(|kind| {
        (
            kind,
            rows.iter()
                .filter(|row| row["kind"] == kind && number(row, "tok_s_median") > 0.0)
                .collect::<Vec<_>>(),
        )
    });
    let before = plots.pictures.len();
    kinds.iter().for_each(|(kind, rows)| plots.add(&format!("depth-{kind}"), depth(rows)));
    if plots.pictures.len() == before {
        plots.notes.push("no curve against depth: no test ran at several depths (-d 0,512,2048)".to_owned());
    }
    kinds.iter().for_each(|(kind, rows)| plots.add(&format!("ops-{kind}"), ops(rows)));
    plots
}

impl Plots {
    /// Adds a picture under a name of its own.
    fn add(&mut self, name: &str, picture: Option<Picture>) {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        let name: String = name.chars().map(plain).collect();
        let taken = |name: &str| self.pictures.iter().any(|(known, _)| known == name);
        let free = (1..)
            .map(|n| if n == 1 { name.clone() } else { format!("{name}-{n}") })
            .find(|name| !taken(name));
        self.pictures.extend(free.zip(picture));
    }
}

/// A figure of a row; what is missing or impossible is 0, so that no file makes a picture of infinities.
fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().filter(|x| (0.0..1e15).contains(x)).unwrap_or(0.0)
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or("?")
}

/// Where and of what the row is.
fn facts(row: &Value) -> String {
    let commit: String = text(row, "commit").chars().take(9).collect();
    let dirty = if row["dirty"] == true { "-dirty" } else { "" };
    format!("{} on {}, {}, commit {commit}{dirty}", text(row, "model"), text(row, "cpu"), text(row, "isa"))
}

fn threads(row: &Value) -> String {
    let n = &row["threads"];
    if *n == 1 { "1 thread".to_owned() } else { format!("{n} threads") }
}

/// Ops with their entries, most time first.
fn op_times(row: &Value) -> Vec<(&str, &Value)> {
    let ops = row["op_times"].as_object();
    let mut ops: Vec<_> = ops.into_iter().flatten().map(|(name, op)| (name.as_str(), op)).collect();
    ops.retain(|(name, op)| *name != "idle" && number(op, "worker_ns") > 0.0);
    ops.sort_by(|a, b| number(b.1, "worker_ns").total_cmp(&number(a.1, "worker_ns")));
    ops
}

/// Rate of plain reads between the repetitions, median; else what the floor says.
fn bandwidth(row: &Value) -> f64 {
    let found = row["plain_reads_gb_s"].as_array().into_iter().flatten();
    let mut rates: Vec<f64> = found.filter_map(Value::as_f64).filter(|rate| *rate > 0.0).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_else(|| number(row, "bandwidth_gb_s"))
}

/// A point of a roofline.
struct Spot {
    label: String,
    /// Products per byte.
    x: f64,
    /// 10^9 products per second.
    y: f64,
}

/// Products per second of each op against products per byte, under what memory and arithmetic deliver.
fn roofline(row: &Value) -> Option<Picture> {
    let tiles = text(row, "isa_ran").ends_with("+amx");
    let rates = [("f32", "f32_g_s"), ("int8", "int8_g_s"), ("int8 on tiles", "amx_g_s")];
    let rates = rates.iter().map(|(name, key)| (*name, number(row, key))).filter(|(_, rate)| *rate > 0.0);
    let mut rates: Vec<_> = rates.filter(|(name, _)| tiles || !name.ends_with("tiles")).collect();
    let bandwidth = bandwidth(row);
    let top = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let spot = |(op, value): &(&str, &Value)| {
        let [products, bytes, ns] = ["products", "bytes", "wall_ns"].map(|key| number(value, key));
        let (x, y) = (products / bytes, products / ns);
        let share = y / (bandwidth * x).min(top);
        let share =
            if share > 1.0 { "above the roof: cached".to_owned() } else { format!("{:.0} %", share * 100.0) };
        // What the roof at this place is made of.
        let rate = if bandwidth * x < top {
            format!("{} GB/s", short(bytes / ns))
        } else {
            format!("{} G/s", short(y))
        };
        let label = format!("{op}: {rate}, {share}");
        (x.is_finite() && x > 0.0 && y.is_finite()).then_some(Spot { label, x, y })
    };
    let spots: Vec<Spot> = op_times(row).iter().filter_map(spot).take(SERIES).collect();
    if spots.is_empty() || bandwidth <= 0.0 || top <= 0.0 {
        return None;
    }
    let entries: Vec<_> = spots.iter().enumerate().map(|(n, spot)| (n, spot.label.clone())).collect();
    let (mut picture, area) = plane("Roofline per op", row, &entries);
    let ridge = top / bandwidth;
    let x = Axis::log("products per byte read", spots.iter().map(|spot| spot.x).chain([ridge, ridge / 8.0]));
    let heights = spots.iter().map(|spot| spot.y).chain(rates.iter().map(|(_, rate)| *rate));
    let y = Axis::log("10⁹ products per second", heights.chain([bandwidth * x.ends()[0] * 1.5]));
    let [x_from, x_to] = x.ends();
    let y_from = y.ends()[0];
    let frame = Frame::new(&mut picture, area, x, y);
    let start = x_from.max(y_from / bandwidth);
    picture.line(&[frame.at(start, bandwidth * start), frame.at(ridge, top)], Paint::Ink, 2.0, false);
    let label = format!("{} GB/s read by these threads", short(bandwidth));
    roof_label(&mut picture, &frame, [start, ridge], bandwidth, &label);
    rates.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut lowest = 0.0_f32;
    for (name, rate) in rates {
        let line = [frame.at(rate / bandwidth, rate), frame.at(x_to, rate)];
        picture.line(&line, Paint::Ink, 2.0, rate < top);
        // Above the line, but not on the label of the roof above it.
        lowest = (line[1][1] - 6.0).max(lowest + 15.0);
        let label = format!("{} G/s multiply-adds of {name}", short(rate));
        picture.text([line[1][0] - 4.0, lowest], &label, TEXT[0], Paint::Ink, Anchor::End);
    }
    spots.iter().enumerate().for_each(|(n, spot)| picture.mark(frame.at(spot.x, spot.y), n));
    Some(picture)
}

/// Writes what the sloped roof is to the upper left of it, where no point can be.
fn roof_label(picture: &mut Picture, frame: &Frame, [from, to]: [f64; 2], slope: f64, label: &str) {
    let width = text_width(label, TEXT[0]);
    let places = (1..=20).map(|i| from * (to / from).powf(f64::from(i) / 20.0));
    let fits = places.map(|x| frame.at(x, x * slope)).find(|[x, _]| x - width - 10.0 > frame.area[0]);
    if let Some([x, y]) = fits {
        picture.text([x - 8.0, y - 2.0], label, TEXT[0], Paint::Ink, Anchor::End);
    }
}

/// A picture with a heading and a legend, and the area left for the plane.
fn plane(title: &str, row: &Value, entries: &[(usize, String)]) -> (Picture, [f32; 4]) {
    let title = match row["test"].as_str().filter(|_| title.starts_with("Roofline")) {
        Some(test) => format!("{title}, {test}, {}", threads(row)),
        None => title.to_owned(),
    };
    let mut picture = Picture::new(&format!("{title}: {}", facts(row)), SIZE);
    heading(&mut picture, &title, &facts(row));
    let right = SIZE[0] - legend_size(entries)[0] - 20.0;
    legend(&mut picture, [right + 8.0, 96.0], entries, true);
    (picture, [64.0, 92.0, right - 14.0, SIZE[1] - 52.0])
}

/// Tokens per second against the positions cached before; a series for each test that ran at several depths.
fn depth(rows: &[&Value]) -> Option<Picture> {
    let key = |row: &Value| {
        let batch = row["batch"].as_u64().filter(|n| *n > 1).map_or_else(String::new, |n| format!(" × {n}"));
        let kv = if row["kv_type"] == "f16" { ", f16 cache" } else { "" };
        format!("{} tokens{batch}, {}, {}{kv}", row["tokens"], threads(row), text(row, "path"))
    };
    let mut series: Vec<(String, Vec<&Value>)> = Vec::new();
    for row in rows {
        match series.iter_mut().find(|(known, _)| *known == key(row)) {
            Some((_, members)) => members.push(row),
            None => series.push((key(row), vec![row])),
        }
    }
    series
        .iter_mut()
        .for_each(|(_, rows)| rows.sort_by(|a, b| number(a, "depth").total_cmp(&number(b, "depth"))));
    series.retain(|(_, rows)| rows.first().map(|row| &row["depth"]) != rows.last().map(|row| &row["depth"]));
    let entries: Vec<_> = series.iter().enumerate().map(|(n, (name, _))| (n, name.clone())).collect();
    let first = series.first()?.1[0];
    let (mut picture, area) =
        plane(&format!("Tokens per second against depth, {}", text(first, "kind")), first, &entries);
    // Tokens per second of the percentiles of time.
    let rate = |row: &Value, key: &str| {
        number(row, "tok_s_median") * number(row, "median_ns") / number(row, key).max(1.0)
    };
    let all = || series.iter().flat_map(|(_, rows)| rows);
    let x =
        Axis::linear("positions cached before", all().map(|row| number(row, "depth")).fold(0.0, f64::max));
    let y = Axis::linear(
        "tokens per second (median, p10 to p90)",
        all().map(|row| rate(row, "p10_ns")).fold(0.0, f64::max),
    );
    let frame = Frame::new(&mut picture, area, x, y);
    for (n, (_, rows)) in series.iter().enumerate() {
        let at = |row: &Value, key: &str| frame.at(number(row, "depth"), rate(row, key));
        let points: Vec<Point> = rows.iter().map(|row| at(row, "median_ns")).collect();
        picture.line(&points, Paint::Series(n), 2.0, false);
        for (row, point) in rows.iter().zip(points) {
            picture.line(&[at(row, "p10_ns"), at(row, "p90_ns")], Paint::Series(n), 1.5, false);
            picture.mark(point, n);
        }
    }
    Some(picture)
}

/// Height of a bar with the space to the next.
const BAR: f32 = 46.0;

/// Time of the workers per token, stacked by op; a bar for each row.
fn ops(rows: &[&Value]) -> Option<Picture> {
    let rows: Vec<&Value> = rows.iter().copied().filter(|row| row["op_times"].is_object()).collect();
    let per_token =
        |row: &Value, op: &Value| number(op, "worker_ns") / number(row, "rows_per_step").max(1.0) / 1e3;
    let mut totals: Vec<(String, f64)> = Vec::new();
    for (row, (name, op)) in rows.iter().flat_map(|row| op_times(row).into_iter().map(move |op| (row, op))) {
        match totals.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += per_token(row, op),
            None => totals.push((name.to_owned(), per_token(row, op))),
        }
    }
    totals.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut entries: Vec<_> = totals.into_iter().map(|(name, _)| name).take(SERIES).enumerate().collect();
    entries.push((SERIES, "all other ops".to_owned()));
    let first = rows.first()?;
    let name = |row: &Value| format!("{}, {}, {}", text(row, "test"), threads(row), text(row, "path"));
    let left = 30.0 + rows.iter().map(|row| text_width(&name(row), TEXT[0])).fold(0.0, f32::max);
    let [width, height] = legend_size(&entries);
    let bottom = 92.0 + (rows.len() as f32 * BAR).max(height + 30.0);
    let title = format!("Time of the workers per token by op, {}", text(first, "kind"));
    let mut picture = Picture::new(&format!("{title}: {}", facts(first)), [SIZE[0], bottom + 52.0]);
    heading(&mut picture, &title, &facts(first));
    let area = [left, 92.0, SIZE[0] - width - 40.0, bottom];
    let most = rows.iter().map(|row| number(row, "step_ns") / number(row, "rows_per_step").max(1.0) / 1e3);
    let x = Axis::linear("µs per token, mean of the workers", most.fold(0.0, f64::max));
    let frame = Frame::new(&mut picture, area, x, Axis::none());
    for (line, row) in rows.iter().enumerate() {
        let top = 92.0 + 8.0 + line as f32 * BAR;
        picture.text([left - 10.0, top + 19.0], &name(row), TEXT[0], Paint::Ink, Anchor::End);
        let times = op_times(row);
        let of = |n: usize| {
            let known =
                |op: &str| entries.iter().take(SERIES).position(|(_, name)| name == op).unwrap_or(SERIES);
            times.iter().filter(|(op, _)| known(op) == n).map(|(_, op)| per_token(row, op)).sum::<f64>()
        };
        let idle = per_token(row, &row["op_times"]["idle"]);
        let parts = entries.iter().map(|(n, _)| (Paint::Series(*n), of(*n))).chain([(Paint::Grid, idle)]);
        let whole = number(row, "step_ns") / number(row, "rows_per_step").max(1.0) / 1e3;
        bar(&mut picture, &frame, top, parts.collect(), whole);
    }
    let at = [area[2] + 24.0, 108.0];
    legend(&mut picture, at, &entries, false);
    let last = at[1] + height;
    picture.rect([at[0] - 5.0, last - 9.0], [10.0, 10.0], Paint::Grid);
    picture.text([at[0] + 14.0, last], "no work", TEXT[0], Paint::Ink, Anchor::Start);
    Some(picture)
}

/// One bar of adjacent parts; a part that has room shows its share.
fn bar(picture: &mut Picture, frame: &Frame, top: f32, parts: Vec<(Paint, f64)>, whole: f64) {
    let mut from = 0.0;
    for (paint, part) in parts {
        let [left, right] = [from, from + part].map(|x| frame.at(x, 0.0)[0]);
        picture.rect([left, top], [right - left, BAR - 16.0], paint);
        let share = format!("{:.0} %", part / whole * 100.0);
        if right - left > text_width(&share, TEXT[0]) + 6.0 {
            let ink = if paint == Paint::Grid { Paint::Ink } else { Paint::Paper };
            picture.text([(left + right) / 2.0, top + 19.0], &share, TEXT[0], ink, Anchor::Middle);
        }
        from += part;
    }
}

#[cfg(test)]
mod tests;
