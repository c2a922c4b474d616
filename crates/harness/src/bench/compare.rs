//! Two files of rows side by side: like rows are paired, unlike ones refused with the reason.

use serde_json::Value;

/// What two rows must share to be compared. Commit, compiler, path and what else a change may change is free.
const LIKE: [&str; 12] = [
    "schema",
    "cpu",
    "cores",
    "isa",
    "os",
    "model_hash",
    "device",
    "threads",
    "kind",
    "tokens",
    "depth",
    "batch",
];

/// A like pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Test and threads.
    pub test: String,
    /// Median tokens per second of either side.
    pub rates: [f64; 2],
    /// What to know before believing the ratio.
    pub notes: Vec<String>,
}

impl Pair {
    /// How many times faster the second is.
    pub fn ratio(&self) -> f64 {
        self.rates[1] / self.rates[0]
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Like pairs, in the order of the first file.
    pub pairs: Vec<Pair>,
    /// One line for each row that has no like.
    pub refused: Vec<String>,
}

/// Reads rows as `bench` writes them: a JSON list, or one object a line.
///
/// # Errors
/// What is wrong, and in which line.
pub fn parse_rows(text: &str) -> Result<Vec<Value>, String> {
    let rows = match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => rows,
        Ok(row @ Value::Object(_)) => vec![row],
        _ => {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let row = |(number, line): (usize, &str)| {
                serde_json::from_str(line)
                    .map_err(|error| format!("line {} is not JSON: {error}", number + 1))
            };
            lines.map(row).collect::<Result<_, String>>()?
        }
    };
    let fault = |row: &Value| {
        let missing = LIKE.iter().chain(&["test", "tok_s_median"]).find(|key| row.get(**key).is_none());
        missing.map(|key| format!("a row has no `{key}`: write the file with `amoeba bench -o json`"))
    };
    rows.iter().find_map(fault).map_or(Ok(rows.clone()), Err)
}

/// Pairs the rows of `a` with those of `b`.
pub fn compare(a: &[Value], b: &[Value]) -> Comparison {
    let mut found = Comparison::default();
    let mut taken = vec![false; b.len()];
    for row in a {
        let like = (0..b.len()).find(|&i| !taken[i] && differences(row, &b[i]).is_empty());
        match like {
            Some(i) => {
                taken[i] = true;
                found.pairs.push(pair(row, &b[i]));
            }
            None => found.refused.push(format!("first file, {}: {}", title(row), reason(row, b))),
        }
    }
    for (row, _) in b.iter().zip(taken).filter(|(_, taken)| !taken) {
        found.refused.push(format!("second file, {}: {}", title(row), reason(row, a)));
    }
    found
}

/// What differs of that which must not: key, value here, value there.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    let keys = LIKE.iter().filter(|key| a[**key] != b[**key]);
    keys.map(|key| format!("{} {} here, {} there", key.replace('_', " "), a[*key], b[*key])).collect()
}

/// Why `row` has no like among `others`: how it differs from the nearest.
fn reason(row: &Value, others: &[Value]) -> String {
    let nearest = others.iter().map(|other| differences(row, other)).min_by_key(Vec::len);
    match nearest {
        None => "the other file has no rows".to_owned(),
        Some(none) if none.is_empty() => "the other file has fewer of them".to_owned(),
        Some(differences) => differences.join("; "),
    }
}

fn title(row: &Value) -> String {
    format!("{}, threads {}", row["test"].as_str().unwrap_or("?"), row["threads"])
}

fn pair(a: &Value, b: &Value) -> Pair {
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let mut notes = Vec::new();
    for (row, which) in [(a, "first"), (b, "second")] {
        if let Some(why) = row["untrusted"].as_str() {
            notes.push(format!("{which} is untrusted: {why}"));
        }
    }
    let apart = number(a, "p10_ns") > number(b, "p90_ns") || number(b, "p10_ns") > number(a, "p90_ns");
    if !apart {
        notes.push("within the spread".to_owned());
    }
    for key in ["path", "isa_ran", "kv_type", "activations", "device_detail", "rustc"] {
        if let [Some(a), Some(b)] =
            [a[key].as_str(), b[key].as_str()].map(|text| text.filter(|_| a[key] != b[key]))
        {
            notes.push(format!("{a} → {b}"));
        }
    }
    // Rows of before there was a choice do not say.
    let [from, to] = [a, b].map(|row| row["sampling"].as_str().unwrap_or("host"));
    if a["kind"] == "decode" && from != to {
        notes.push(format!("tokens drawn: {from} → {to}"));
    }
    Pair { test: title(a), rates: [a, b].map(|row| number(row, "tok_s_median")), notes }
}

impl Comparison {
    /// The pairs as a table, then what was refused.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        if !self.pairs.is_empty() {
            out += "| test | first, tok/s | second, tok/s | ratio | note |\n|---|---:|---:|---:|---|\n";
        }
        for pair in &self.pairs {
            let (rates, notes) = (pair.rates, pair.notes.join("; "));
            let ratio = pair.ratio();
            out += &format!("| {} | {:.1} | {:.1} | {ratio:.3} | {notes} |\n", pair.test, rates[0], rates[1]);
        }
        if !self.refused.is_empty() {
            out += "\nnot compared:\n";
            self.refused.iter().for_each(|line| out += &format!("- {line}\n"));
        }
        out
    }
}
