//! One measured row as data: its fields are the keys of its JSON, and their docs are what
//! `amoeba bench --help` says about them.

use amoeba_backend::DeviceKind;
use serde::{Deserialize, Serialize};

use super::floor::{Bandwidth, Compute};
use super::parts::{OpTimes, Reads, lenient};
use super::subject::Kind;

/// Version of the JSON of a row. Keys are only ever added within a version.
pub const SCHEMA: u64 = 4;

/// Declares a struct whose fields are keys of JSON, read leniently, and lists them with their docs in `KEYS`.
/// Fields after `beyond` are left out of the JSON.
macro_rules! keys {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ pub $key:ident: $type:ty,)*
        } beyond {
            $($(#[doc = $other_doc:literal])+ pub $other:ident: $other_type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[doc = $doc])+ #[serde(deserialize_with = "lenient")] pub $key: $type,)*
            $($(#[doc = $other_doc])+ #[serde(skip)] pub $other: $other_type,)*
        }

        impl $name {
            /// Every key with the lines of its description, in the order of the JSON.
            pub const KEYS: &[(&str, &[&str])] = &[$((stringify!($key), &[$($doc),+])),*];
        }
    };
}

keys! {
    /// One test with all its repetitions, and everything needed to judge it. Every key is in every row,
    /// `null` where it has no meaning; units are in the names.
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    #[serde(default)]
    pub struct Row {
        /// 4; keys are only ever added within a schema
        pub schema: u64,
        /// version of this program
        pub version: String,
        /// commit it was built from; empty where it was built without git
        pub commit: String,
        /// whether sources differed from the commit
        pub dirty: bool,
        /// compiler it was built with
        pub rustc: String,
        /// processor of this machine
        pub cpu: String,
        /// cores this process may use
        pub cores: usize,
        /// widest instruction set of this machine
        pub isa: String,
        /// operating system and architecture
        pub os: String,
        /// where it ran
        pub device: String,
        /// device, the instruction set asked for, workers
        pub device_detail: String,
        /// instruction set that the steps ran on; `+amx` in it only if products ran on AMX tiles
        pub isa_ran: String,
        /// worker threads
        pub threads: usize,
        /// name of the model
        pub model: String,
        /// hash of config.json, the headers of the weight files, and of every tensor 64 bytes at its
        /// beginning, in its middle and at its end
        pub model_hash: String,
        /// bytes of all tensors in the files
        pub model_bytes: u64,
        /// stored formats of matrices, most bytes first
        pub formats: Vec<String>,
        /// pp512 prefills 512 tokens, tg128x4@1000 decodes 128 tokens of each of 4 sequences with 1000
        /// positions cached (1 where the depth is 0); filling the cache is not timed
        pub test: String,
        /// `prefill` or `decode`
        pub kind: Kind,
        /// tokens per sequence
        pub tokens: usize,
        /// positions cached before
        pub depth: usize,
        /// sequences at a time
        pub batch: usize,
        /// path through the experts
        pub path: String,
        /// the path, and why it was taken
        pub path_reason: String,
        /// decode: `device` where it samples the tokens itself (the likeliest), one step ahead of the
        /// host, as in `run`; `host` where the logits of every token come to the host
        pub sampling: Option<String>,
        /// type of the KV cache
        pub kv_type: String,
        /// precision of activations in products
        pub activations: String,
        /// repetitions before the first that counts; after them the tests take turns
        pub warmups: usize,
        /// number of repetitions
        pub repeats: usize,
        /// every repetition in ns
        pub samples_ns: Vec<u64>,
        /// median of the repetitions
        pub median_ns: Option<f64>,
        /// a tenth of the repetitions are shorter
        pub p10_ns: Option<f64>,
        /// a tenth of the repetitions are longer
        pub p90_ns: Option<f64>,
        /// (p90 - p10) / median
        pub spread: Option<f64>,
        /// null, or why not to believe the row: a spread over 4 %, fewer than 3 repetitions, other work
        pub untrusted: Option<String>,
        /// tokens per second at the median, all sequences together
        pub tok_s_median: Option<f64>,
        /// decode: bytes a step reads divided by its sequences: stored weights (an expert that several
        /// rows need counts once), and keys and values at the mean position
        pub bytes_per_token: Option<f64>,
        /// the same by part of the model
        pub bytes_per_token_parts: Option<Reads>,
        /// decode: different experts a step needs per layer, counted while running
        pub distinct_experts: Option<f64>,
        /// decode: bytes read per second at the median
        pub achieved_gb_s: Option<f64>,
        /// the same threads reading a buffer
        pub bandwidth_gb_s: Option<f64>,
        /// size of that buffer: the first of 16, 64, 256, 1024 that holds the model
        pub bandwidth_mib: Option<usize>,
        /// achieved_gb_s / bandwidth_gb_s
        pub share_of_floor: Option<f64>,
        /// decode: plain reads of the weights (at most 256 MiB) by the same threads before and after
        /// each repetition, mean of both
        pub plain_reads_gb_s: Vec<f64>,
        /// median of the ratios to them, which the table shows: on a shared machine bandwidth changes
        /// by the minute, and from one region of memory to another
        pub share_of_plain_reads: Option<f64>,
        /// prefill: 10^9 products of a weight and a number of x per second
        pub products_g_s: Option<f64>,
        /// 10^9 multiply-adds of f32 per second that these threads do at best
        pub f32_g_s: Option<f64>,
        /// the same of int8 on the vector units
        pub int8_g_s: Option<f64>,
        /// the same of int8 on AMX tiles; null without them
        pub amx_g_s: Option<f64>,
        /// products_g_s / f32_g_s
        pub share_of_f32: Option<f64>,
        /// products_g_s / int8_g_s (amx_g_s where isa_ran has `+amx`). A product takes several
        /// multiply-adds of int8, so this stays below 1
        pub share_of_int8: Option<f64>,
        /// cores that other work used when the floor was measured; over 0.15 the floor is too low
        pub floor_other_cores: Option<f64>,
        /// cores that other work used during the tests; over 0.15 the row is untrusted (Linux; null
        /// where the time was too short to tell)
        pub other_cores: Option<f64>,
        /// clock right after the repetitions, mean over cores (null where the system does not say)
        pub clock_mhz: Option<f64>,
        /// parallel phases of a step, each of which ends with a wait for its last item
        pub phases_per_step: Option<f64>,
        /// the part of a step in which one thread prepares phases and checks logits
        pub host_ns_per_step: Option<f64>,
        /// the rest of it
        pub execute_ns_per_step: Option<f64>,
        /// rows of a recorded step
        pub rows_per_step: Option<f64>,
        /// ns of a recorded step: the first steps of the test, at most 8, are recorded off the clock,
        /// and the faster half of them counts
        pub step_ns: Option<f64>,
        /// of those steps, by op: the ns that workers spent on it, the mean ns of a worker, and the
        /// bytes and products it needs (of a prompt as many experts as its rows can choose)
        pub op_times: Option<OpTimes>,
        /// from opening the folder until ready; the file cache is left as it is
        pub load_ms: f64,
        /// from opening the folder until the logits of a first token
        pub first_token_ms: f64,
        /// weights, caches, buffers
        pub memory_bytes: usize,
        /// most memory held since the load began (Linux; mapped file pages count)
        pub peak_memory_bytes: Option<u64>,
        /// its ratio to model_bytes
        pub peak_memory_ratio: Option<f64>,
    } beyond {
        /// What it ran on; a row that was read does not say.
        pub ran_on: DeviceKind,
        /// What a reader of the table must know about `sampling`.
        pub sampling_note: Option<&'static str>,
    }
}

impl Row {
    /// Tokens per second when a repetition takes `ns` nanoseconds.
    pub fn rate(&self, ns: f64) -> f64 {
        (self.tokens * self.batch) as f64 * 1e9 / ns
    }

    /// Fills in what the machine does at best at the row's number of threads: its reads of a buffer as large
    /// as the model, and its arithmetic, where that was measured.
    pub fn hold_against(&mut self, read: &Bandwidth, rates: Option<&Compute>) {
        self.bandwidth_gb_s = Some(read.gb_s);
        self.bandwidth_mib = Some(read.mib);
        self.floor_other_cores = read.other_cores;
        self.share_of_floor = self.achieved_gb_s.map(|achieved| achieved / read.gb_s);
        let Some(rates) = rates else { return };
        self.f32_g_s = Some(rates.f32_g_s);
        self.int8_g_s = Some(rates.int8_g_s);
        self.amx_g_s = rates.amx_g_s;
        let tiles = rates.amx_g_s.filter(|_| self.isa_ran.ends_with("+amx"));
        self.share_of_f32 = self.products_g_s.map(|products| products / rates.f32_g_s);
        self.share_of_int8 = self.products_g_s.map(|products| products / tiles.unwrap_or(rates.int8_g_s));
    }
}
