//! Pictures of rows as `bench -o json` writes them: roofline per op, tokens per second against depth, time
//! per op.
//!
//! They are drawn from what the JSON holds, so a saved file gives the pictures that the run itself gives.

use super::parts::{IDLE, OpTime};
use super::row::Row;
use super::subject::Kind;
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
pub fn plots(rows: &[Row]) -> Plots {
    let mut plots = Plots::default();
    for row in rows.iter().filter(|row| row.op_times.is_some()) {
        plots.add(&format!("roofline-{}-t{}", row.test, row.threads), roofline(row));
    }
    if plots.pictures.is_empty() {
        let what = "no roofline: no row has both op_times and the floor; a CPU writes them (`bench -o json`)";
        plots.notes.push(what.to_owned());
    }
    let of = |kind| rows.iter().filter(move |row| row.kind == kind && sane(row.tok_s_median) > 0.0);
    let kinds = [("decode", of(Kind::Decode).collect()), ("prefill", of(Kind::Prefill).collect::<Vec<_>>())];
    let before = plots.pictures.len();
    kinds.iter().for_each(|(kind, rows)| plots.add(&format!("depth-{kind}"), depth(kind, rows)));
    if plots.pictures.len() == before {
        plots.notes.push("no curve against depth: no test ran at several depths (-d 0,512,2048)".to_owned());
    }
    kinds.iter().for_each(|(kind, rows)| plots.add(&format!("ops-{kind}"), ops(kind, rows)));
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
fn sane(figure: Option<f64>) -> f64 {
    figure.filter(|x| (0.0..1e15).contains(x)).unwrap_or(0.0)
}

fn text(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

/// Where and of what the row is.
fn facts(row: &Row) -> String {
    let commit: String = text(&row.commit).chars().take(9).collect();
    let dirty = if row.dirty { "-dirty" } else { "" };
    format!("{} on {}, {}, commit {commit}{dirty}", text(&row.model), text(&row.cpu), text(&row.isa))
}

fn threads(row: &Row) -> String {
    if row.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", row.threads) }
}

/// Ops with their entries, most time first.
fn op_times(row: &Row) -> Vec<(&str, &OpTime)> {
    let ops = row.op_times.iter().flat_map(|times| &times.0);
    let mut ops: Vec<_> = ops.map(|(name, op)| (name.as_str(), op)).collect();
    ops.retain(|(name, op)| *name != IDLE && sane(op.worker_ns) > 0.0);
    ops.sort_by(|a, b| sane(b.1.worker_ns).total_cmp(&sane(a.1.worker_ns)));
    ops
}

/// Rate of plain reads between the repetitions, median; else what the floor says.
fn bandwidth(row: &Row) -> f64 {
    let mut rates: Vec<f64> = row.plain_reads_gb_s.iter().copied().filter(|rate| *rate > 0.0).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_else(|| sane(row.bandwidth_gb_s))
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
fn roofline(row: &Row) -> Option<Picture> {
    let amx = row.amx_g_s.filter(|_| row.isa_ran.ends_with("+amx"));
    let rates = [("f32", row.f32_g_s), ("int8", row.int8_g_s), ("int8 on tiles", amx)];
    let mut rates: Vec<_> = rates.map(|(name, rate)| (name, sane(rate))).to_vec();
    rates.retain(|(_, rate)| *rate > 0.0);
    let bandwidth = bandwidth(row);
    let top = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let spot = |(op, time): &(&str, &OpTime)| {
        let [products, bytes, ns] = [time.products, time.bytes, time.wall_ns].map(sane);
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
    let title = format!("Roofline per op, {}, {}", row.test, threads(row));
    let (mut picture, area) = plane(&title, row, &entries);
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
fn plane(title: &str, row: &Row, entries: &[(usize, String)]) -> (Picture, [f32; 4]) {
    let mut picture = Picture::new(&format!("{title}: {}", facts(row)), SIZE);
    heading(&mut picture, title, &facts(row));
    let right = SIZE[0] - legend_size(entries)[0] - 20.0;
    legend(&mut picture, [right + 8.0, 96.0], entries, true);
    (picture, [64.0, 92.0, right - 14.0, SIZE[1] - 52.0])
}

/// Tokens per second against the positions cached before; a series for each test that ran at several depths.
fn depth(kind: &str, rows: &[&Row]) -> Option<Picture> {
    let key = |row: &Row| {
        let batch = if row.batch > 1 { format!(" × {}", row.batch) } else { String::new() };
        let kv = if row.kv_type == "f16" { ", f16 cache" } else { "" };
        format!("{} tokens{batch}, {}, {}{kv}", row.tokens, threads(row), text(&row.path))
    };
    let mut series: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        match series.iter_mut().find(|(known, _)| *known == key(row)) {
            Some((_, members)) => members.push(row),
            None => series.push((key(row), vec![row])),
        }
    }
    series.iter_mut().for_each(|(_, rows)| rows.sort_by_key(|row| row.depth));
    series.retain(|(_, rows)| rows.first().map(|row| row.depth) != rows.last().map(|row| row.depth));
    let entries: Vec<_> = series.iter().enumerate().map(|(n, (name, _))| (n, name.clone())).collect();
    let first = series.first()?.1[0];
    let title = format!("Tokens per second against depth, {kind}");
    let (mut picture, area) = plane(&title, first, &entries);
    // Tokens per second of the percentiles of time.
    let rate = |row: &Row, ns: Option<f64>| sane(row.tok_s_median) * sane(row.median_ns) / sane(ns).max(1.0);
    let depth = |row: &Row| sane(Some(row.depth as f64));
    let all = || series.iter().flat_map(|(_, rows)| rows);
    let x = Axis::linear("positions cached before", all().map(|row| depth(row)).fold(0.0, f64::max));
    let y = Axis::linear(
        "tokens per second (median, p10 to p90)",
        all().map(|row| rate(row, row.p10_ns)).fold(0.0, f64::max),
    );
    let frame = Frame::new(&mut picture, area, x, y);
    for (n, (_, rows)) in series.iter().enumerate() {
        let at = |row: &Row, ns: Option<f64>| frame.at(depth(row), rate(row, ns));
        let points: Vec<Point> = rows.iter().map(|row| at(row, row.median_ns)).collect();
        picture.line(&points, Paint::Series(n), 2.0, false);
        for (row, point) in rows.iter().zip(points) {
            picture.line(&[at(row, row.p10_ns), at(row, row.p90_ns)], Paint::Series(n), 1.5, false);
            picture.mark(point, n);
        }
    }
    Some(picture)
}

/// Height of a bar with the space to the next.
const BAR: f32 = 46.0;

/// Time of the workers per token, stacked by op; a bar for each row.
fn ops(kind: &str, rows: &[&Row]) -> Option<Picture> {
    let rows: Vec<&Row> = rows.iter().copied().filter(|row| row.op_times.is_some()).collect();
    let per_token = |row: &Row, ns: Option<f64>| sane(ns) / sane(row.rows_per_step).max(1.0) / 1e3;
    let mut totals: Vec<(String, f64)> = Vec::new();
    for (row, (name, op)) in rows.iter().flat_map(|row| op_times(row).into_iter().map(move |op| (row, op))) {
        match totals.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += per_token(row, op.worker_ns),
            None => totals.push((name.to_owned(), per_token(row, op.worker_ns))),
        }
    }
    totals.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut entries: Vec<_> = totals.into_iter().map(|(name, _)| name).take(SERIES).enumerate().collect();
    entries.push((SERIES, "all other ops".to_owned()));
    let first = rows.first()?;
    let name = |row: &Row| format!("{}, {}, {}", text(&row.test), threads(row), text(&row.path));
    let left = 30.0 + rows.iter().map(|row| text_width(&name(row), TEXT[0])).fold(0.0, f32::max);
    let [width, height] = legend_size(&entries);
    let bottom = 92.0 + (rows.len() as f32 * BAR).max(height + 30.0);
    let title = format!("Time of the workers per token by op, {kind}");
    let mut picture = Picture::new(&format!("{title}: {}", facts(first)), [SIZE[0], bottom + 52.0]);
    heading(&mut picture, &title, &facts(first));
    let area = [left, 92.0, SIZE[0] - width - 40.0, bottom];
    let most = rows.iter().map(|row| per_token(row, row.step_ns));
    let x = Axis::linear("µs per token, mean of the workers", most.fold(0.0, f64::max));
    let frame = Frame::new(&mut picture, area, x, Axis::none());
    for (line, row) in rows.iter().enumerate() {
        let top = 92.0 + 8.0 + line as f32 * BAR;
        picture.text([left - 10.0, top + 19.0], &name(row), TEXT[0], Paint::Ink, Anchor::End);
        let times = op_times(row);
        let of = |n: usize| {
            let known =
                |op: &str| entries.iter().take(SERIES).position(|(_, name)| name == op).unwrap_or(SERIES);
            times
                .iter()
                .filter(|(op, _)| known(op) == n)
                .map(|(_, op)| per_token(row, op.worker_ns))
                .sum::<f64>()
        };
        let idle = row.op_times.as_ref().and_then(|times| times.get(IDLE)?.worker_ns);
        let parts = entries
            .iter()
            .map(|(n, _)| (Paint::Series(*n), of(*n)))
            .chain([(Paint::Grid, per_token(row, idle))]);
        bar(&mut picture, &frame, top, parts.collect(), per_token(row, row.step_ns));
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
