//! What the machine can do at best, as data: read bandwidth and multiply-adds by number of threads.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version of a JSON form: written as `N`; nothing else is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schema<const N: u64>;

impl<const N: u64> Serialize for Schema<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(N)
    }
}

impl<'de, const N: u64> Deserialize<'de> for Schema<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Schema<N>, D::Error> {
        let found = u64::deserialize(deserializer)?;
        let fault = || serde::de::Error::custom(format!("it is of schema {found}, not {N}"));
        (found == N).then_some(Schema).ok_or_else(fault)
    }
}

/// Reads something optional that must nevertheless be written down, if only as `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Option::deserialize(deserializer)
}

/// Read bandwidth of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Threads reading, each its own part and bound to its own core where the system allows that.
    pub threads: usize,
    /// MiB read over and over by all threads together.
    pub mib: usize,
    /// Median over the rounds of the fastest order of reading, GB/s.
    pub gb_s: f64,
    /// Best round.
    pub best_gb_s: f64,
    /// Measured in a hurry: fewer rounds.
    pub quick: bool,
    /// Cores that other work used meanwhile, where the system tells: the figure is then too low.
    #[serde(deserialize_with = "present")]
    pub other_cores: Option<f64>,
}

/// 10^9 multiply-adds per second of all threads together, median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compute {
    /// Threads.
    pub threads: usize,
    /// Of f32, fused.
    pub f32_g_s: f64,
    /// Of int8 into i32, with the instructions the engine uses (VNNI, where the machine has it).
    pub int8_g_s: f64,
    /// Of int8 on AMX tiles, where the machine has them: with the operation that the engine has for products
    /// of many rows, loads and stores of its tiles included.
    #[serde(deserialize_with = "present")]
    pub amx_g_s: Option<f64>,
    /// Measured in a hurry: fewer rounds.
    pub quick: bool,
    /// Cores that other work used meanwhile, where the system tells: the figure is then too low.
    #[serde(deserialize_with = "present")]
    pub other_cores: Option<f64>,
}

/// All measurements of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Version of the JSON.
    pub schema: Schema<2>,
    /// Widest instruction set, which the rates are of.
    pub isa: String,
    /// Every configuration read.
    pub read: Vec<Bandwidth>,
    /// Every number of threads.
    pub compute: Vec<Compute>,
}

/// Sizes read, in MiB: from what caches hold to far outside of them.
pub const SIZES: [usize; 4] = [16, 64, 256, 1024];

/// Cores that other work may use without harm to a measurement.
pub const OTHERS_MAX: f64 = 0.15;

/// The size of [`SIZES`] that stands for `bytes` bytes of weights: the smallest that holds them, else the
/// largest.
pub fn size_class(bytes: u64) -> usize {
    SIZES.into_iter().find(|&mib| (mib as u64) << 20 >= bytes).unwrap_or(SIZES[SIZES.len() - 1])
}

impl Floor {
    /// Bandwidth of that configuration, if it was measured.
    pub fn bandwidth(&self, threads: usize, mib: usize) -> Option<Bandwidth> {
        self.read.iter().copied().find(|row| (row.threads, row.mib) == (threads, mib))
    }

    /// Rates at that number of threads, if they were measured.
    pub fn rates(&self, threads: usize) -> Option<Compute> {
        self.compute.iter().copied().find(|row| row.threads == threads)
    }

    /// Adds measurements; they replace those of the same configuration.
    pub fn merge(&mut self, newer: Floor) {
        let Floor { isa, read, compute, .. } = newer;
        self.read.retain(|old| read.iter().all(|new| (new.threads, new.mib) != (old.threads, old.mib)));
        self.compute.retain(|old| compute.iter().all(|new| new.threads != old.threads));
        self.read.extend(read);
        self.compute.extend(compute);
        self.read.sort_by_key(|row| (row.mib, row.threads));
        self.compute.sort_by_key(|row| row.threads);
        self.isa = isa;
    }

    /// Whether every figure can be one: of some threads and bytes, above 0, finite.
    pub fn possible(&self) -> bool {
        let rate = |rate: f64| rate.is_finite() && rate > 0.0;
        let size = |mib: usize| (1..=usize::MAX >> 20).contains(&mib);
        self.read.iter().all(|row| row.threads > 0 && size(row.mib) && rate(row.gb_s) && rate(row.best_gb_s))
            && self.compute.iter().all(|row| {
                let rates = [row.f32_g_s, row.int8_g_s, row.amx_g_s.unwrap_or(1.0)];
                row.threads > 0 && rates.into_iter().all(rate)
            })
    }

    /// The floor for people: a line per number of threads.
    pub fn markdown(&self) -> String {
        let mut sizes: Vec<usize> = self.read.iter().map(|row| row.mib).collect();
        sizes.dedup();
        let mut threads: Vec<usize> = self.read.iter().map(|row| row.threads).collect();
        threads.extend(self.compute.iter().map(|row| row.threads));
        threads.sort_unstable();
        threads.dedup();
        let mut out = "| threads |".to_owned();
        sizes.iter().for_each(|mib| out += &format!(" read {mib} MiB |"));
        out += &format!(" f32 ({isa}) | int8 ({isa}) | int8 (amx) |\n|---:|", isa = self.isa);
        out += &"---:|".repeat(sizes.len() + 3);
        for threads in threads {
            out += &format!("\n| {threads} |");
            for &mib in &sizes {
                let cell = self
                    .bandwidth(threads, mib)
                    .map(|row| format!("{:.1} GB/s{}", row.gb_s, star(row.other_cores)));
                out += &format!(" {} |", cell.unwrap_or_default());
            }
            let rates = self.rates(threads).map_or([const { String::new() }; 3], |row| {
                let cell = |rate: f64| format!("{rate:.0} G/s{}", star(row.other_cores));
                let amx = row.amx_g_s.map_or_else(|| "none".to_owned(), cell);
                [cell(row.f32_g_s), cell(row.int8_g_s), amx]
            });
            out += &format!(" {} |", rates.join(" | "));
        }
        if out.contains(DISTURBED) {
            out += &format!("\n\n{DISTURBED} {DISTURBED_MEANS}");
        }
        out + "\n"
    }
}

/// Mark of a figure that other work made too low.
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
        let other_cores = Some(0.5);
        let read = Bandwidth { threads, mib: 16, gb_s: 20.0, best_gb_s: 30.0, quick, other_cores };
        let amx_g_s = (threads > 1).then_some(3e3);
        let compute = Compute { threads, f32_g_s: 1e2, int8_g_s: 4e2, amx_g_s, quick, other_cores: None };
        Floor { isa: "avx2".to_owned(), read: vec![read], compute: vec![compute], ..Floor::default() }
    }

    #[test]
    fn a_floor_survives_its_json() {
        let mut all = floor(1, true);
        all.merge(floor(2, false));
        all.merge(floor(1, false));
        assert_eq!((all.read.len(), all.compute.len()), (2, 2));
        assert!(!all.read[0].quick);
        let text = serde_json::to_string(&all).unwrap();
        let read = |text: &str| serde_json::from_str::<Floor>(text).ok().filter(Floor::possible);
        assert_eq!(read(&text), Some(all.clone()));
        assert_eq!(read(&text.replace("\"schema\":2", "\"schema\":99")), None);
        assert_eq!(read(&text.replace("\"gb_s\":20.0", "\"gb_s\":0")), None);
    }

    #[test]
    fn the_size_class_holds_the_weights_where_one_does() {
        assert_eq!(size_class(1), 16);
        assert_eq!(size_class((16 << 20) + 1), 64);
        assert_eq!(size_class(u64::MAX), 1024);
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
