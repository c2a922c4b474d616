//! What the machine can do at best, as data: read bandwidth and multiply-adds by number of threads.

use serde_json::{Value, json};

/// Read bandwidth of one configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Threads reading, each its own part and bound to its own core where the system allows that.
    pub threads: usize,
    /// Bytes read over and over by all threads together.
    pub bytes: usize,
    /// Median over the rounds of the fastest order of reading, bytes per second.
    pub median: f64,
    /// Best round.
    pub best: f64,
    /// Measured in a hurry: fewer rounds.
    pub quick: bool,
    /// Cores that other work used meanwhile, where the system tells: the figure is then too low.
    pub others: Option<f64>,
}

/// Multiply-adds per second of all threads together, median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compute {
    /// Threads.
    pub threads: usize,
    /// Of f32, fused.
    pub f32: f64,
    /// Of int8 into i32, with the instructions the engine uses (VNNI, where the machine has it).
    pub int8: f64,
    /// Of int8 on AMX tiles, where the machine has them: with the operation that the engine has for products
    /// of many rows, loads and stores of its tiles included.
    pub amx: Option<f64>,
    /// Measured in a hurry: fewer rounds.
    pub quick: bool,
    /// Cores that other work used meanwhile, where the system tells: the figure is then too low.
    pub others: Option<f64>,
}

/// All measurements of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floor {
    /// Widest instruction set, which the rates are of.
    pub isa: String,
    /// Every configuration read.
    pub read: Vec<Bandwidth>,
    /// Every number of threads.
    pub compute: Vec<Compute>,
}

/// Sizes read: from what caches hold to far outside of them.
pub const SIZES: [usize; 4] = [16 << 20, 64 << 20, 256 << 20, 1 << 30];

/// Cores that other work may use without harm to a measurement.
pub const OTHERS_MAX: f64 = 0.15;

/// Version of the JSON of a floor.
const SCHEMA: u64 = 2;

/// The size of [`SIZES`] that stands for `bytes` bytes of weights: the smallest that holds them, else the
/// largest.
pub fn size_class(bytes: usize) -> usize {
    SIZES.into_iter().find(|&size| size >= bytes).unwrap_or(SIZES[SIZES.len() - 1])
}

impl Floor {
    /// Bandwidth of that configuration, if it was measured.
    pub fn bandwidth(&self, threads: usize, bytes: usize) -> Option<Bandwidth> {
        self.read.iter().copied().find(|row| (row.threads, row.bytes) == (threads, bytes))
    }

    /// Rates at that number of threads, if they were measured.
    pub fn rates(&self, threads: usize) -> Option<Compute> {
        self.compute.iter().copied().find(|row| row.threads == threads)
    }

    /// Adds measurements; they replace those of the same configuration.
    pub fn merge(&mut self, newer: Floor) {
        let Floor { isa, read, compute } = newer;
        self.read.retain(|old| read.iter().all(|new| (new.threads, new.bytes) != (old.threads, old.bytes)));
        self.compute.retain(|old| compute.iter().all(|new| new.threads != old.threads));
        self.read.extend(read);
        self.compute.extend(compute);
        self.read.sort_by_key(|row| (row.bytes, row.threads));
        self.compute.sort_by_key(|row| row.threads);
        self.isa = isa;
    }

    /// The floor as JSON: GB/s and G multiply-adds per second.
    pub fn json(&self) -> Value {
        let read = self.read.iter().map(|row| {
            json!({
                "threads": row.threads, "mib": row.bytes >> 20, "gb_s": row.median / 1e9,
                "best_gb_s": row.best / 1e9, "quick": row.quick, "other_cores": row.others,
            })
        });
        let compute = self.compute.iter().map(|row| {
            json!({
                "threads": row.threads, "f32_g_s": row.f32 / 1e9, "int8_g_s": row.int8 / 1e9,
                "amx_g_s": row.amx.map(|rate| rate / 1e9), "quick": row.quick, "other_cores": row.others,
            })
        });
        json!({
            "schema": SCHEMA, "isa": self.isa,
            "read": read.collect::<Vec<_>>(), "compute": compute.collect::<Vec<_>>(),
        })
    }

    /// Reads what [`Floor::json`] wrote; `None` for anything else.
    pub fn from_json(value: &Value) -> Option<Floor> {
        let whole = |row: &Value, key: &str| usize::try_from(row.get(key)?.as_u64()?).ok().filter(|&n| n > 0);
        let rate = |row: &Value, key: &str| {
            let rate = row.get(key)?.as_f64()? * 1e9;
            (rate.is_finite() && rate > 0.0).then_some(rate)
        };
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        let read = |row: &Value| {
            Some(Bandwidth {
                threads: whole(row, "threads")?,
                bytes: whole(row, "mib")?.checked_mul(1 << 20)?,
                median: rate(row, "gb_s")?,
                best: rate(row, "best_gb_s")?,
                quick: row.get("quick")?.as_bool()?,
                others: row.get("other_cores")?.as_f64(),
            })
        };
        let compute = |row: &Value| {
            Some(Compute {
                threads: whole(row, "threads")?,
                f32: rate(row, "f32_g_s")?,
                int8: rate(row, "int8_g_s")?,
                amx: if row.get("amx_g_s")?.is_null() { None } else { Some(rate(row, "amx_g_s")?) },
                quick: row.get("quick")?.as_bool()?,
                others: row.get("other_cores")?.as_f64(),
            })
        };
        (value.get("schema")?.as_u64()? == SCHEMA).then_some(())?;
        Some(Floor {
            isa: text("isa")?,
            read: value.get("read")?.as_array()?.iter().map(read).collect::<Option<_>>()?,
            compute: value.get("compute")?.as_array()?.iter().map(compute).collect::<Option<_>>()?,
        })
    }

    /// The floor for people: a line per number of threads.
    pub fn markdown(&self) -> String {
        let mut sizes: Vec<usize> = self.read.iter().map(|row| row.bytes).collect();
        sizes.dedup();
        let mut threads: Vec<usize> = self.read.iter().map(|row| row.threads).collect();
        threads.extend(self.compute.iter().map(|row| row.threads));
        threads.sort_unstable();
        threads.dedup();
        let mut out = "| threads |".to_owned();
        sizes.iter().for_each(|bytes| out += &format!(" read {} MiB |", bytes >> 20));
        out += &format!(" f32 ({isa}) | int8 ({isa}) | int8 (amx) |\n|---:|", isa = self.isa);
        out += &"---:|".repeat(sizes.len() + 3);
        for threads in threads {
            out += &format!("\n| {threads} |");
            for &bytes in &sizes {
                let cell = self
                    .bandwidth(threads, bytes)
                    .map(|row| format!("{:.1} GB/s{}", row.median / 1e9, star(row.others)));
                out += &format!(" {} |", cell.unwrap_or_default());
            }
            let rates = self.rates(threads).map_or([const { String::new() }; 3], |row| {
                let cell = |rate: f64| format!("{:.0} G/s{}", rate / 1e9, star(row.others));
                [cell(row.f32), cell(row.int8), row.amx.map_or_else(|| "none".to_owned(), cell)]
            });
            out += &format!(" {} |", rates.join(" | "));
        }
        if out.contains(DISTURBED) {
            out += &format!("\n\n{DISTURBED} {DISTURBED_MEANS}");
        }
        out + "\n"
    }
}

/// Behind a figure that other work made too low.
pub(super) const DISTURBED: char = '*';
/// What it means.
pub(super) const DISTURBED_MEANS: &str =
    "too low: other work ran meanwhile; repeat `amoeba bench --floor --refresh` when the machine is quiet";

/// The mark, if other work used `cores` cores.
pub(super) fn star(others: Option<f64>) -> String {
    others.filter(|&cores| cores > OTHERS_MAX).map_or_else(String::new, |_| DISTURBED.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn floor(threads: usize, quick: bool) -> Floor {
        let (bytes, amx) = (16 << 20, (threads > 1).then_some(3e12));
        let read = Bandwidth { threads, bytes, median: 2e10, best: 3e10, quick, others: Some(0.5) };
        let compute = Compute { threads, f32: 1e11, int8: 4e11, amx, quick, others: None };
        Floor { isa: "avx2".to_owned(), read: vec![read], compute: vec![compute] }
    }

    #[test]
    fn a_floor_survives_its_json() {
        let mut all = floor(1, true);
        all.merge(floor(2, false));
        all.merge(floor(1, false));
        assert_eq!((all.read.len(), all.compute.len()), (2, 2));
        assert!(!all.read[0].quick);
        assert_eq!(Floor::from_json(&all.json()), Some(all.clone()));
        let mut other = all.json();
        other["schema"] = json!(99);
        assert_eq!(Floor::from_json(&other), None);
        let mut zero = all.json();
        zero["read"][0]["gb_s"] = json!(0);
        assert_eq!(Floor::from_json(&zero), None);
    }

    #[test]
    fn the_size_class_holds_the_weights_where_one_does() {
        assert_eq!(size_class(1), 16 << 20);
        assert_eq!(size_class((16 << 20) + 1), 64 << 20);
        assert_eq!(size_class(usize::MAX), 1 << 30);
    }

    #[test]
    fn the_table_has_a_cell_for_everything() {
        let mut all = floor(1, false);
        all.merge(floor(2, false));
        let text = all.markdown();
        let table = text.lines().filter(|line| line.starts_with('|'));
        assert!(
            table.clone().count() == 4 && table.clone().all(|line| line.matches('|').count() == 6),
            "{text}"
        );
        assert!(text.contains("| 2 | 20.0 GB/s* | 100 G/s | 400 G/s | 3000 G/s |\n\n* too low"), "{text}");
        assert!(text.contains("| 1 | 20.0 GB/s* | 100 G/s | 400 G/s | none |"), "{text}");
    }
}
