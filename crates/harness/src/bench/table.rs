//! Rows for people (markdown) and for spreadsheets (CSV).

use serde_json::Value;

use super::floor::{DISTURBED, DISTURBED_MEANS, star};
use super::row::Row;
use super::spread::Spread;

/// Facts that rows share, then a table with a line per row.
pub fn markdown(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let dirty = if first.dirty { "-dirty" } else { "" };
    let commit = if first.commit.is_empty() { "no commit" } else { &first.commit };
    let Row { model, device, model_hash, version, rustc, cpu, cores, isa, os, .. } = first;
    let (formats, megabytes) = (first.formats.join(" "), first.model_bytes as f64 / 1e6);
    let mut out = format!(
        "{model} ({device}, {formats}), {megabytes:.1} MB, hash {model_hash}\n\
         version {version} ({commit}{dirty}), {rustc}; {cpu}, {cores} cores, {isa}, {os}\n"
    );
    let mut loads: Vec<&Row> = rows.iter().collect();
    loads.dedup_by_key(|row| row.threads);
    loads.iter().for_each(|row| out += &load(row));
    out += "\n| test | threads | tok/s | p10–p90 | spread | MB/token | GB/s | of bandwidth | G products/s \
            | of int8 | of f32 | phases | host | path | ran on |\n\
            |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---|\n";
    rows.iter().for_each(|row| out += &line(row));
    out += &sampling(rows);
    if rows.iter().any(|row| !star(row.floor_other_cores).is_empty()) {
        out += &format!("\n{DISTURBED} what the machine does at best was measured {DISTURBED_MEANS}\n");
    }
    out
}

/// Who drew the tokens of which tests, where that may differ.
fn sampling(rows: &[Row]) -> String {
    let mut notes: Vec<(&str, Vec<String>)> = Vec::new();
    for row in rows {
        let Some(note) = row.sampling_note else { continue };
        let (test, known) = (row.test.clone(), notes.iter().position(|(known, _)| *known == note));
        match known {
            None => notes.push((note, vec![test])),
            Some(known) if notes[known].1.contains(&test) => {}
            Some(known) => notes[known].1.push(test),
        }
    }
    let lines = notes.iter().map(|(note, tests)| format!("\n{}: {note}\n", tests.join(", ")));
    lines.collect()
}

fn load(row: &Row) -> String {
    let Row { device_detail, load_ms, first_token_ms, memory_bytes, .. } = row;
    let peak = row.peak_memory_bytes.zip(row.peak_memory_ratio).map_or_else(String::new, |(peak, ratio)| {
        format!(", peak {:.1} MB ({ratio:.2} × the files)", peak as f64 / 1e6)
    });
    format!(
        "{device_detail}: loaded in {load_ms:.0} ms, first token after {first_token_ms:.0} ms; {:.1} \
         MB{peak}\n",
        *memory_bytes as f64 / 1e6,
    )
}

fn line(row: &Row) -> String {
    let spread = Spread::of(&row.samples_ns);
    let number =
        |value: Option<f64>, digits: usize| value.map_or_else(String::new, |x| format!("{x:.digits$}"));
    let star = star(row.floor_other_cores);
    let percent =
        |share: Option<f64>| share.map_or_else(String::new, |x| format!("{:.0} %{star}", x * 100.0));
    let trust = match &row.untrusted {
        None => format!("{:.1} %", spread.relative() * 100.0),
        Some(why) => format!("**untrusted: {why}**"),
    };
    let rate = |ns: f64| {
        let rate = row.rate(ns);
        if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
    };
    let host = row.host_ns_per_step.zip(row.step_ns);
    let cells = [
        row.test.clone(),
        row.threads.to_string(),
        rate(spread.median),
        format!("{}–{}", rate(spread.p90), rate(spread.p10)),
        trust,
        number(row.bytes_per_token.map(|bytes| bytes / 1e6), 1),
        number(row.achieved_gb_s, 1),
        row.share_of_plain_reads.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0)),
        number(row.products_g_s, 1),
        percent(row.share_of_int8),
        percent(row.share_of_f32),
        number(row.phases_per_step, 0),
        host.map_or_else(String::new, |(host, step)| format!("{:.1} %", host / step.max(1.0) * 100.0)),
        row.path_reason.clone(),
        row.isa_ran.clone(),
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// A header and a line per row: the keys of its JSON, nested ones joined by a dot, lists joined by blanks.
pub fn csv(rows: &[Row]) -> String {
    let json = |row| serde_json::to_value(row).expect("a row has keys of text and plain values");
    let tables: Vec<Vec<(String, String)>> = rows.iter().map(|row| flat("", &json(row))).collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in tables.iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    // A test that reads nothing has `bytes_per_token_parts` empty instead of its parts.
    let nested = |key: &str| keys.iter().any(|other| other.starts_with(&format!("{key}.")));
    let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).filter(|key| !nested(key)).collect();
    let mut out = keys.join(",") + "\n";
    for table in &tables {
        let cell = |key: &&str| table.iter().find(|(known, _)| known == key).map_or("", |(_, cell)| cell);
        out += &(keys.iter().map(cell).map(quoted).collect::<Vec<_>>().join(",") + "\n");
    }
    out
}

fn flat(prefix: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| {
                let dot = if prefix.is_empty() { "" } else { "." };
                flat(&format!("{prefix}{dot}{key}"), value)
            })
            .collect(),
        Value::Array(list) => {
            vec![(prefix.to_owned(), list.iter().map(plain).collect::<Vec<_>>().join(" "))]
        }
        value => vec![(prefix.to_owned(), plain(value))],
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}
