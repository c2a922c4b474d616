//! Two files of rows compared: like rows are paired, unlike ones refused with the reason.

use serde_json::{Value, json};

use super::row::Row;
use super::subject::Kind;

/// What two rows must share to be compared. Commit, compiler, path and what else a change may change is free.
fn likeness(row: &Row) -> [(&'static str, Value); 12] {
    macro_rules! keys {
        ($($key:ident)*) => { [$((stringify!($key), json!(row.$key))),*] };
    }
    keys!(schema cpu cores isa os model_hash device threads kind tokens depth batch)
}

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

/// Reads rows as `bench` writes them: a JSON list, or one object a line. What a comparison needs must be in
/// every row, as `bench` writes it; other keys may be missing or odd.
///
/// # Errors
/// What is wrong, and in which line.
pub fn parse_rows(text: &str) -> Result<Vec<Row>, String> {
    let values = match serde_json::from_str(text) {
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
    values.iter().map(parse_row).collect()
}

fn parse_row(value: &Value) -> Result<Row, String> {
    let row: Row = serde_json::from_value(value.clone()).unwrap_or_default();
    let like = likeness(&row).into_iter().find(|(key, read)| value.get(key) != Some(read));
    let missing = like.map(|(key, _)| key);
    let missing = missing.or(row.test.is_empty().then_some("test"));
    match missing.or(row.tok_s_median.is_none().then_some("tok_s_median")) {
        Some(key) => Err(format!("a row has no `{key}`: write the file with `amoeba bench -o json`")),
        None => Ok(row),
    }
}

/// Pairs the rows of `a` with those of `b`.
pub fn compare(a: &[Row], b: &[Row]) -> Comparison {
    let mut found = Comparison::default();
    let mut taken = vec![false; b.len()];
    for row in a {
        let like = (0..b.len()).find(|&i| !taken[i] && likeness(row) == likeness(&b[i]));
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
fn differences(a: &Row, b: &Row) -> Vec<String> {
    let pairs = likeness(a).into_iter().zip(likeness(b)).filter(|(a, b)| a != b);
    pairs.map(|((key, a), (_, b))| format!("{} {a} here, {b} there", key.replace('_', " "))).collect()
}

/// Why `row` has no like among `others`: how it differs from the nearest.
fn reason(row: &Row, others: &[Row]) -> String {
    let nearest = others.iter().map(|other| differences(row, other)).min_by_key(Vec::len);
    match nearest {
        None => "the other file has no rows".to_owned(),
        Some(none) if none.is_empty() => "the other file has fewer of them".to_owned(),
        Some(differences) => differences.join("; "),
    }
}

fn title(row: &Row) -> String {
    format!("{}, threads {}", row.test, row.threads)
}

fn pair(a: &Row, b: &Row) -> Pair {
    let mut notes = Vec::new();
    for (row, which) in [(a, "first"), (b, "second")] {
        if let Some(why) = &row.untrusted {
            notes.push(format!("{which} is untrusted: {why}"));
        }
    }
    let above = |low: Option<f64>, high: Option<f64>| low.zip(high).is_some_and(|(low, high)| low > high);
    if !above(a.p10_ns, b.p90_ns) && !above(b.p10_ns, a.p90_ns) {
        notes.push("within the spread".to_owned());
    }
    let free: [fn(&Row) -> &String; 6] = [
        |row| &row.path,
        |row| &row.isa_ran,
        |row| &row.kv_type,
        |row| &row.activations,
        |row| &row.device_detail,
        |row| &row.rustc,
    ];
    for (a, b) in free.map(|text| (text(a), text(b))) {
        if a != b && !a.is_empty() && !b.is_empty() {
            notes.push(format!("{a} → {b}"));
        }
    }
    // Rows from before there was a choice do not say.
    let [from, to] = [a, b].map(|row| row.sampling.as_deref().unwrap_or("host"));
    if a.kind == Kind::Decode && from != to {
        notes.push(format!("tokens drawn: {from} → {to}"));
    }
    let rates = [a, b].map(|row| row.tok_s_median.unwrap_or(f64::NAN));
    Pair { test: title(a), rates, notes }
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
