//! Pictures of made-up rows, read back from their SVG.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use roxmltree::{Document, Node};
use serde_json::{Value, json};

use super::*;

/// A row that decodes on two threads at 50 GB/s and 1000 G int8 multiply-adds per second at best.
fn row(depth: usize, changes: &[(&str, Value)]) -> Row {
    // Bytes, products and ns: 80 %, 40 % and 20 % of the bandwidth; the head multiplies more per byte.
    let op = |bytes: f64, products: f64, ns: f64| {
        json!({ "wall_ns": ns, "worker_ns": ns * 0.9,
        "bytes": bytes, "products": products })
    };
    let mut row = json!({
        "schema": 4, "test": format!("tg128@{depth}"), "kind": "decode", "tokens": 128, "depth": depth,
        "batch": 1, "threads": 2, "path": "fused", "kv_type": "f32", "model": "model", "cpu": "cpu",
        "isa": "avx2",
        "device_detail": "cpu (avx2)", "commit": "0123456789abcdef", "dirty": true, "isa_ran": "avx2",
        "bandwidth_gb_s": 50.0, "f32_g_s": 200.0, "int8_g_s": 1000.0, "amx_g_s": null,
        "tok_s_median": 100.0 - depth as f64 / 100.0, "median_ns": 1e9,
        "p10_ns": 0.9e9, "p90_ns": 1.2e9,
        "rows_per_step": 1.0, "step_ns": 4.2e6,
        "op_times": {
            "experts": op(80e6, 160e6, 2e6), "q_proj": op(10e6, 20e6, 0.5e6), "lm_head": op(10e6, 90e6, 1e6),
            "attention": op(1e6, 4e6, 0.2e6), "norm": op(1e4, 0.0, 0.1e6), "(start)": op(0.0, 0.0, 0.05e6),
            "idle": { "worker_ns": 0.7e6 },
        },
    });
    changes.iter().for_each(|(key, value)| row[*key] = value.clone());
    serde_json::from_value(row).unwrap()
}

fn rows() -> Vec<Row> {
    let prefill = [("kind", json!("prefill")), ("test", json!("pp512")), ("path", json!("unfused"))];
    let amx = [("isa_ran", json!("avx512+amx")), ("amx_g_s", json!(1100.0)), ("threads", json!(16))];
    let long = [("model", json!("<a long> & \"winded\" name of a model")), ("kv_type", json!("f16"))];
    vec![
        row(0, &[]),
        row(2048, &[]),
        row(4096, &amx),
        row(0, &amx),
        row(512, &long),
        row(0, &long),
        row(0, &prefill),
    ]
}

fn value(node: Node<'_, '_>, name: &str) -> f32 {
    node.attribute(name).unwrap().parse().unwrap()
}

fn points(node: Node<'_, '_>) -> Vec<Point> {
    let pair =
        |text: &str| text.split_once(',').map(|(x, y)| [x.parse().unwrap(), y.parse().unwrap()]).unwrap();
    node.attribute("points").unwrap().split(' ').map(pair).collect()
}

/// Left, top, right, bottom of a text.
fn bounds(node: Node<'_, '_>) -> [f32; 4] {
    let ([x, y, size], text) = (["x", "y", "font-size"].map(|name| value(node, name)), node.text().unwrap());
    let width = text_width(text, size);
    let left = x - width
        * match node.attribute("text-anchor") {
            Some("start") => 0.0,
            Some("middle") => 0.5,
            _ => 1.0,
        };
    [left, y - size * 0.75, left + width, y + size * 0.2]
}

#[test]
fn every_picture_is_whole_and_no_text_is_cut_or_covered_by_another() {
    let plots = plots(&rows());
    let names: Vec<_> = plots.pictures.iter().map(|(name, _)| name.as_str()).collect();
    let rooflines = "tg128-0-t2 tg128-2048-t2 tg128-4096-t16 tg128-0-t16 tg128-512-t2 tg128-0-t2-2 pp512-t2";
    let rooflines = rooflines.split(' ').map(|name| format!("roofline-{name}"));
    assert_eq!(names[..7], rooflines.collect::<Vec<_>>());
    assert_eq!((&names[7..], plots.notes.len()), (&["depth-decode", "ops-decode", "ops-prefill"][..], 0));
    for (name, picture) in &plots.pictures {
        let svg = picture.svg();
        let document = Document::parse(&svg).unwrap();
        let root = document.root_element();
        let [width, height] = ["width", "height"].map(|name| value(root, name));
        let texts: Vec<_> = root.children().filter(|node| node.has_tag_name("text")).collect();
        assert!(texts.len() > 10, "{name}");
        for (index, text) in texts.iter().enumerate() {
            let [left, top, right, bottom] = bounds(*text);
            let word = text.text().unwrap();
            assert!(left >= 0.0 && top >= 0.0 && right <= width && bottom <= height, "{name}: {word} is cut");
            for other in &texts[..index] {
                let b = bounds(*other);
                let apart = right <= b[0] || b[2] <= left || bottom <= b[1] || b[3] <= top;
                assert!(apart, "{name}: {word} lies on {}", other.text().unwrap());
            }
        }
        let classes: Vec<_> = root.descendants().filter_map(|node| node.attribute("class")).collect();
        let colours =
            classes.iter().enumerate().filter(|(at, class)| !classes[..*at].contains(class)).count();
        assert!(colours > 4, "{name}: {colours} colours, those of the page and no series");
    }
}

#[test]
fn points_of_a_roofline_lie_under_the_roofs_at_their_distance() {
    let svg = roofline(&row(0, &[])).unwrap().svg();
    let document = Document::parse(&svg).unwrap();
    let nodes =
        |tag| document.root_element().children().filter(move |node: &Node<'_, '_>| node.has_tag_name(tag));
    let roofs: Vec<_> =
        nodes("polyline").filter(|node| node.attribute("stroke-width") == Some("2")).map(points).collect();
    let [slope, int8s, f32s] = &roofs[..] else { panic!("{roofs:?}") };
    assert_eq!(slope[1], int8s[0], "the ridge");
    assert!(f32s[0][1] > int8s[0][1], "a lower rate is a lower roof");
    let middle = |node: Node<'_, '_>| match node.tag_name().name() {
        "circle" => [value(node, "cx"), value(node, "cy")],
        "rect" => {
            [value(node, "x") + value(node, "width") / 2.0, value(node, "y") + value(node, "height") / 2.0]
        }
        _ => {
            let points = points(node);
            [0, 1].map(|axis| {
                let all = points.iter().map(|point| point[axis]);
                (all.clone().fold(f32::MAX, f32::min) + all.fold(0.0, f32::max)) / 2.0
            })
        }
    };
    let roof = |x: f32| {
        let share = (x - slope[0][0]) / (slope[1][0] - slope[0][0]);
        (slope[0][1] + share * (slope[1][1] - slope[0][1])).max(int8s[0][1])
    };
    let all = nodes("circle").chain(nodes("rect").skip(1)).chain(nodes("polygon")).map(middle);
    let marks: Vec<Point> = all.filter(|[x, _]| *x < int8s[1][0]).collect(); // the others are the legend's
    assert_eq!(marks.len(), 4);
    assert!(marks.iter().all(|[x, y]| *y > roof(*x)), "{marks:?}");
    // Experts, the only circle, have 80 % of the bandwidth.
    let tick = |label: &str| value(nodes("text").find(|node| node.text() == Some(label)).unwrap(), "y");
    let below = (marks[0][1] - roof(marks[0][0])) / (tick("100") - tick("1000"));
    assert!((below + 0.8f32.log10()).abs() < 0.02, "{below} decades below the roof");
    assert!(svg.contains(">experts: 40 GB/s, 80 %<") && svg.contains(">attention: 5 GB/s, 10 %<"), "{svg}");
    let fast = row(0, &[("plain_reads_gb_s", json!([90.0, 30.0, 10.0]))]);
    assert!(roofline(&fast).unwrap().svg().contains(">experts: 40 GB/s, above the roof: cached<"));
}

#[test]
fn bars_are_as_long_as_a_token_takes() {
    let svg = ops("decode", &[&row(0, &[("rows_per_step", json!(2.0))])]).unwrap().svg();
    let document = Document::parse(&svg).unwrap();
    let rects: Vec<_> =
        document.root_element().children().filter(|node| node.attribute("height") == Some("30")).collect();
    let length: f32 = rects.iter().map(|node| value(*node, "width")).sum();
    let ticks: Vec<_> = document
        .root_element()
        .children()
        .filter(|node| node.attribute("text-anchor") == Some("middle"))
        .collect();
    let at =
        |label: &str| value(**ticks.iter().find(|node| node.text() == Some(label)).as_ref().unwrap(), "x");
    // 3.85 ms of ops × 0.9 and 0.7 ms idle for two rows.
    let micros = length / (at("1000") - at("0")) * 1000.0;
    assert!((micros - (3.85 * 0.9 + 0.7) / 2.0 * 1000.0).abs() < 2.0, "{micros}");
}

#[test]
fn rows_without_something_say_so_and_odd_rows_do_no_harm() {
    let none = plots(&[row(0, &[("op_times", Value::Null)])]);
    assert!(none.pictures.is_empty() && none.notes.len() == 2, "{:?}", none.notes);
    assert!(none.notes[0].contains("op_times") && none.notes[1].contains("-d 0,512,2048"));
    assert_eq!(plots(&[]).notes.len(), 2);
    let odd = [json!(-1.0), json!(0.0), json!("x"), json!(1e300), json!([]), Value::Null];
    for key in
        "tok_s_median median_ns p90_ns depth bandwidth_gb_s int8_g_s rows_per_step step_ns test op_times"
            .split_whitespace()
    {
        for value in &odd {
            for (_, picture) in plots(&[row(0, &[(key, value.clone())]), row(7, &[])]).pictures {
                let svg = picture.svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{key} {value}");
            }
        }
    }
}
