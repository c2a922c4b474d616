//! A test while it is measured: what its row says before the clock starts, and its figures afterwards.

use amoeba_backend::KvType;

use super::cost::Model;
use super::floor::OTHERS_MAX;
use super::parts::Reads;
use super::row::Row;
use super::spread::Spread;
use super::subject::{Kind, Test};

/// Spread above which a row is not to be trusted.
const SPREAD_MAX: f64 = 0.04;
/// Fewest repetitions that show a spread.
const REPEATS_MIN: usize = 3;

/// A test while it is measured.
pub(super) struct Case<'a> {
    pub model: &'a Model,
    pub test: Test,
    pub kv: KvType,
    /// Bytes that an average step reads; decode only.
    pub reads: Option<Reads>,
    /// Products of a weight and a number of x in one repetition.
    pub products: f64,
    /// Bytes per second of plain reads of the weights by the same threads, mean of just before and just after
    /// each repetition; decode only.
    pub plain_reads: Vec<f64>,
    /// The row, with everything but the figures that [`Case::finish`] derives.
    pub row: Row,
}

impl Case<'_> {
    /// Derives the figures from the repetitions.
    pub fn finish(self) -> Row {
        let Case { test, reads, plain_reads, mut row, .. } = self;
        let spread = Spread::of(&row.samples_ns);
        let rate = row.rate(spread.median);
        row.repeats = row.samples_ns.len();
        row.untrusted = untrusted(&row, spread.relative());
        [row.median_ns, row.p10_ns, row.p90_ns] = [spread.median, spread.p10, spread.p90].map(Some);
        (row.spread, row.tok_s_median) = (Some(spread.relative()), Some(rate));
        row.bytes_per_token_parts = reads.map(|reads| reads.per(test.batch));
        row.bytes_per_token = row.bytes_per_token_parts.map(Reads::total);
        row.achieved_gb_s = row.bytes_per_token.map(|bytes| bytes * rate / 1e9);
        row.share_of_plain_reads = reads.and_then(|reads| {
            let bytes = reads.total() * test.tokens as f64;
            let pairs = row.samples_ns.iter().zip(&plain_reads);
            let mut shares: Vec<f64> = pairs.map(|(&ns, rate)| bytes * 1e9 / ns as f64 / rate).collect();
            shares.sort_by(f64::total_cmp);
            shares.get(shares.len() / 2).copied()
        });
        row.plain_reads_gb_s = plain_reads.into_iter().map(|rate| rate / 1e9).collect();
        // Decode reads its weights once per step; what a prompt reads is shared by many rows.
        row.products_g_s = (test.kind == Kind::Prefill).then_some(self.products / spread.median);
        row
    }
}

/// Why the row is not to be trusted, if it is not.
fn untrusted(row: &Row, spread: f64) -> Option<String> {
    let percent = format!("spread {:.1} %", spread * 100.0);
    if row.samples_ns.len() < REPEATS_MIN {
        return Some(format!("{} repetitions", row.samples_ns.len()));
    }
    if let Some(cores) = row.other_cores.filter(|&cores| cores > OTHERS_MAX) {
        return Some(format!("{percent}, others used {cores:.1} cores"));
    }
    (spread.is_nan() || spread > SPREAD_MAX).then_some(percent)
}
