//! One measured row: a test with all its repetitions, and everything needed to judge it.

use std::fmt;

use amoeba_backend::{Activations, DeviceKind, KvType};
use amoeba_plan::Path;
use serde_json::{Value, json};

use super::cost::{Model, Reads};
use super::decode::Sampling;
use super::floor::OTHERS_MAX;
use super::ops::StepTime;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tokens of a prompt, in chunks, with `depth` positions cached.
    Prefill,
    /// One token of every sequence per step, with `depth` positions cached (one, where `depth` is 0).
    Decode,
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// What is timed.
    pub kind: Kind,
    /// Tokens per sequence.
    pub tokens: usize,
    /// Positions cached before.
    pub depth: usize,
    /// Sequences at a time; 1 for prefill.
    pub batch: usize,
}

impl Test {
    /// Tokens per repetition, all sequences together.
    pub fn all_tokens(self) -> usize {
        self.tokens * self.batch
    }

    /// Positions cached before the clock starts.
    pub fn cached(self) -> usize {
        match self.kind {
            Kind::Prefill => self.depth,
            Kind::Decode => self.depth.max(1),
        }
    }
}

/// `pp512`, `tg128`, `tg128x4@1000`: tokens, sequences, depth.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::Prefill { "pp" } else { "tg" };
        write!(f, "{kind}{}", self.tokens)?;
        if self.batch > 1 {
            write!(f, "x{}", self.batch)?;
        }
        if self.depth > 0 { write!(f, "@{}", self.depth) } else { Ok(()) }
    }
}

/// Median and spread of repetitions, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Middle value.
    pub median: f64,
    /// A tenth are below.
    pub p10: f64,
    /// A tenth are above.
    pub p90: f64,
}

impl Spread {
    /// Quantiles of some values, interpolated.
    pub fn of(samples: &[u64]) -> Spread {
        Spread::of_values(samples.iter().map(|&ns| ns as f64).collect())
    }

    /// Quantiles of some values of any unit, interpolated.
    pub fn of_values(mut sorted: Vec<f64>) -> Spread {
        sorted.sort_by(f64::total_cmp);
        let at = |q: f64| {
            let x = q * (sorted.len().max(1) - 1) as f64;
            let value = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
            value(x as usize) + x.fract() * (value((x.ceil()) as usize) - value(x as usize))
        };
        Spread { median: at(0.5), p10: at(0.1), p90: at(0.9) }
    }

    /// Distance of the percentiles as a share of the median.
    pub fn relative(&self) -> f64 {
        (self.p90 - self.p10) / self.median
    }
}

/// What the program was built from.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// Version of the program.
    pub version: String,
    /// Commit; empty where it was built without git.
    pub commit: String,
    /// Whether sources differed from the commit.
    pub dirty: bool,
    /// Compiler.
    pub rustc: String,
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Model of the processor.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Widest instruction set.
    pub isa: String,
    /// Operating system and architecture.
    pub os: String,
}

/// One load of the model. Nothing is done to the system's file cache: the first load after a start of the
/// machine reads the disk, later ones do not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// From opening the folder until a step can run.
    pub ready_ns: u64,
    /// From opening the folder until the logits of a prompt of one token.
    pub first_token_ns: u64,
    /// Weights, caches and buffers as the device counts them, in bytes.
    pub memory: usize,
    /// Most memory the process held, from the load to the end of the tests, in bytes; mapped file pages
    /// count.
    pub peak: Option<u64>,
}

/// What the machine does at best, at the row's number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    /// Bytes read per second.
    pub bandwidth: f64,
    /// Size of the buffer read, in bytes: the class of the model's weights.
    pub bytes: usize,
    /// Multiply-adds of f32 per second; NaN where they were not measured.
    pub f32: f64,
    /// Multiply-adds of int8 per second, on the vector units.
    pub int8: f64,
    /// The same on AMX tiles, where the machine has them.
    pub amx: Option<f64>,
    /// Cores that other work used while this was measured.
    pub others: Option<f64>,
}

/// Spread above which a row is not to be trusted.
pub const SPREAD_MAX: f64 = 0.04;
/// Fewest repetitions that tell a spread.
pub const REPEATS_MIN: usize = 3;

/// One test with all its repetitions.
#[derive(Clone, Debug)]
pub struct Row {
    /// The program.
    pub build: Build,
    /// The machine.
    pub host: Host,
    /// The model.
    pub model: Model,
    /// What it ran on.
    pub kind: DeviceKind,
    /// Device by name.
    pub device: String,
    /// Device, instruction set, workers.
    pub device_detail: String,
    /// Instruction set that the steps of the test ran on; `+amx` in it only if products ran on tiles.
    pub isa_ran: String,
    /// Threads asked for.
    pub threads: usize,
    /// What was timed.
    pub test: Test,
    /// Path through the experts and why.
    pub path: Path,
    /// Who drew the tokens; decode only.
    pub sampling: Option<Sampling>,
    /// What keys and values are kept as.
    pub kv: KvType,
    /// What activations are rounded to.
    pub activations: Activations,
    /// Repetitions before the first that counts.
    pub warmups: usize,
    /// Every repetition.
    pub samples_ns: Vec<u64>,
    /// Bytes per second of plain reads of the weights by the same threads, mean of just before and just after
    /// each repetition; decode only.
    pub plain_reads: Vec<f64>,
    /// What an average step of the test reads; decode only.
    pub reads: Option<Reads>,
    /// Different experts an average step needs, mean over layers; decode of a model with experts only.
    pub distinct_experts: Option<f64>,
    /// Products of a weight and a number of x in one repetition.
    pub products: f64,
    /// Parallel phases of an average step, where the device counts them.
    pub phases: Option<f64>,
    /// What a step does, op by op, where the device records it.
    pub steps: Option<StepTime>,
    /// The load it was measured in.
    pub load: Load,
    /// Clock of the cores right after the repetitions, mean in MHz, where the system tells.
    pub clock: Option<f64>,
    /// Cores that other work used during the tests of this load, where the system tells and they took long
    /// enough.
    pub others: Option<f64>,
    /// What the machine does at best; `None` if it was not measured.
    pub best: Option<Best>,
}

impl Row {
    /// Median and percentiles.
    pub fn spread(&self) -> Spread {
        Spread::of(&self.samples_ns)
    }

    /// Why the row is not to be trusted, if it is not.
    pub fn untrusted(&self) -> Option<String> {
        let spread = self.spread().relative();
        if self.samples_ns.len() < REPEATS_MIN {
            return Some(format!("{} repetitions", self.samples_ns.len()));
        }
        if let Some(cores) = self.others.filter(|&cores| cores > OTHERS_MAX) {
            return Some(format!("spread {:.1} %, others used {cores:.1} cores", spread * 100.0));
        }
        (spread.is_nan() || spread > SPREAD_MAX).then(|| format!("spread {:.1} %", spread * 100.0))
    }

    /// Tokens per second when a repetition takes so long.
    pub fn rate(&self, ns: f64) -> f64 {
        self.test.all_tokens() as f64 * 1e9 / ns
    }

    /// Tokens per second at the median, all sequences together.
    pub fn tokens_per_second(&self) -> f64 {
        self.rate(self.spread().median)
    }

    /// Bytes per second at the median; decode only, where every step reads its weights once.
    pub fn achieved(&self) -> Option<f64> {
        Some(self.reads?.total() * self.tokens_per_second() / self.test.batch as f64)
    }

    /// Share of the measured bandwidth.
    pub fn share_of_floor(&self) -> Option<f64> {
        Some(self.achieved()? / self.best?.bandwidth)
    }

    /// Share of the rate of plain reads before and after each repetition, median: what a shared machine does
    /// to both cancels out.
    pub fn share_of_plain_reads(&self) -> Option<f64> {
        let bytes = self.reads?.total() * self.test.tokens as f64;
        let shares = self.samples_ns.iter().zip(&self.plain_reads);
        let mut shares: Vec<f64> = shares.map(|(&ns, rate)| bytes * 1e9 / ns as f64 / rate).collect();
        shares.sort_by(f64::total_cmp);
        shares.get(shares.len() / 2).copied()
    }

    /// Products per second at the median; prefill only, where weights are read once for many rows.
    pub fn products_per_second(&self) -> Option<f64> {
        (self.test.kind == Kind::Prefill).then(|| self.products * 1e9 / self.spread().median)
    }

    /// Products per second as shares of the machine's multiply-adds: of f32, of int8 on the unit that
    /// products ran on.
    pub fn shares_of_peak(&self) -> Option<[f64; 2]> {
        let best = self.best.filter(|best| best.f32.is_finite())?;
        let products = self.products_per_second()?;
        let tiles = best.amx.filter(|_| self.isa_ran.ends_with("+amx"));
        Some([products / best.f32, products / tiles.unwrap_or(best.int8)])
    }

    /// The row as JSON: flat but for the parts and the samples; every key is there in every row, null where
    /// it has no meaning. Units are in the names. Keys are only ever added within a schema.
    pub fn json(&self) -> Value {
        let Row { build, host, model, test, load, .. } = self;
        let spread = self.spread();
        let per_token = |bytes: f64| bytes / test.batch as f64;
        let parts = self.reads.map(|reads| {
            reads
                .by_part()
                .iter()
                .map(|(part, bytes)| ((*part).to_owned(), json!(per_token(*bytes))))
                .collect()
        });
        let shares = self.shares_of_peak();
        let mut value = json!({
            "schema": 4,
            "version": build.version, "commit": build.commit, "dirty": build.dirty, "rustc": build.rustc,
            "cpu": host.cpu, "cores": host.cores, "isa": host.isa, "os": host.os,
            "device": self.device, "device_detail": self.device_detail, "isa_ran": self.isa_ran,
            "threads": self.threads,
            "model": model.name, "model_hash": model.hash, "model_bytes": model.bytes, "formats": model.formats,
            "test": test.to_string(),
            "kind": if test.kind == Kind::Prefill { "prefill" } else { "decode" },
            "tokens": test.tokens, "depth": test.depth, "batch": test.batch,
            "path": self.path.kind.to_string(), "path_reason": self.path.to_string(),
            "sampling": self.sampling.map(Sampling::name),
            "kv_type": self.kv.to_string(), "activations": self.activations.to_string(),
        });
        let measured = json!({
            "warmups": self.warmups, "repeats": self.samples_ns.len(), "samples_ns": self.samples_ns,
            "median_ns": spread.median, "p10_ns": spread.p10, "p90_ns": spread.p90,
            "spread": spread.relative(), "untrusted": self.untrusted(),
            "tok_s_median": self.tokens_per_second(),
            "bytes_per_token": self.reads.map(|reads| per_token(reads.total())),
            "bytes_per_token_parts": parts.map(Value::Object),
            "distinct_experts": self.distinct_experts,
            "achieved_gb_s": self.achieved().map(|bytes| bytes / 1e9),
            "bandwidth_gb_s": self.best.map(|best| best.bandwidth / 1e9),
            "bandwidth_mib": self.best.map(|best| best.bytes >> 20),
            "share_of_floor": self.share_of_floor(),
            "plain_reads_gb_s": self.plain_reads.iter().map(|rate| rate / 1e9).collect::<Vec<_>>(),
            "share_of_plain_reads": self.share_of_plain_reads(),
            "products_g_s": self.products_per_second().map(|products| products / 1e9),
            "f32_g_s": self.best.map(|best| best.f32 / 1e9),
            "int8_g_s": self.best.map(|best| best.int8 / 1e9),
            "amx_g_s": self.best.and_then(|best| best.amx).map(|rate| rate / 1e9),
            "share_of_f32": shares.map(|shares| shares[0]),
            "share_of_int8": shares.map(|shares| shares[1]),
            "floor_other_cores": self.best.and_then(|best| best.others),
            "other_cores": self.others,
            "clock_mhz": self.clock,
            "phases_per_step": self.phases,
            "host_ns_per_step": self.steps.as_ref().map(|steps| steps.host_ns),
            "execute_ns_per_step": self.steps.as_ref().map(|steps| steps.step_ns - steps.host_ns),
            "rows_per_step": self.steps.as_ref().map(|steps| steps.rows),
            "step_ns": self.steps.as_ref().map(|steps| steps.step_ns),
            "op_times": self.steps.as_ref().map(StepTime::json),
            "load_ms": load.ready_ns as f64 / 1e6, "first_token_ms": load.first_token_ns as f64 / 1e6,
            "memory_bytes": load.memory,
            "peak_memory_bytes": load.peak,
            "peak_memory_ratio": load.peak.map(|peak| peak as f64 / model.bytes.max(1) as f64),
        });
        if let (Value::Object(row), Value::Object(measured)) = (&mut value, measured) {
            row.extend(measured);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let spread = Spread::of(&[50, 10, 20, 40, 30]);
        assert_eq!((spread.median, spread.p10, spread.p90), (30.0, 14.0, 46.0));
        assert_eq!(Spread::of(&[7]).p90, 7.0);
        assert_eq!(Spread::of(&[2, 1]).median, 1.5);
        assert!((Spread::of(&[96, 100, 104]).relative() - 0.064).abs() < 1e-9);
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn tests_have_short_names() {
        let test = |kind, tokens, depth, batch| Test { kind, tokens, depth, batch }.to_string();
        assert_eq!(test(Kind::Prefill, 512, 0, 1), "pp512");
        assert_eq!(test(Kind::Decode, 128, 0, 1), "tg128");
        assert_eq!(test(Kind::Decode, 128, 1000, 4), "tg128x4@1000");
    }
}
