//! Launches of `sample`: the logits of some rows to a token each, which go to the host and into the next
//! step.

use super::{Sampling, stream};
use crate::cuda::unit;
use crate::gpu::{Args, Call, Unit};

/// Tokens that the repeat penalty may look back at.
pub const RECENT_MAX: usize = 1024;

/// Entries of the token ring. The host may leave one less unread.
pub const RING: usize = 8;

/// u32 words of a row in an entry of the ring: the entry's number, the token, the first id whose logit is not
/// finite ([`ALL_FINITE`] if none), that logit.
pub const RESULT_WORDS: usize = 4;

/// Third word of a result if all logits are finite.
pub const ALL_FINITE: u32 = u32::MAX;

/// u32 words of a sequence's state: see [`write_state`].
pub const STATE_WORDS: usize = HEAD_WORDS + RECENT_MAX;
const HEAD_WORDS: usize = 18;

const THREADS: usize = 256;
const BANDS: usize = 1024;

/// u32 words of the batch: see [`write_batch`].
pub const fn batch_words(rows_max: usize) -> usize {
    BATCH_HEAD_WORDS + 2 * rows_max
}
const BATCH_HEAD_WORDS: usize = 2;

/// Bytes of working memory of a row; undefined contents.
pub const fn work_bytes(vocab: usize) -> usize {
    THREADS * (8 + 8 + 4) + BANDS * (8 + 4) + 3 * 8 + 4 * 4 + 16 * vocab
}

/// Where everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Logits of row after row, f32; a repeat penalty changes them.
    pub logits: u64,
    /// Elements from one row of them to the next.
    pub stride: usize,
    /// [`STATE_WORDS`] of slot after slot, as [`write_state`] leaves them; a draw takes them on.
    pub states: u64,
    /// [`batch_words`], as [`write_batch`] leaves them; a draw takes them on.
    pub batch: u64,
    /// [`work_bytes`] of row after row.
    pub work: u64,
    /// The step: a draw makes it the next one of its sequences.
    pub step: u64,
    /// [`RING`] entries, each [`RESULT_WORDS`] of row after row, where the host reads them.
    pub ring: u64,
    /// Rows of an entry of the ring.
    pub ring_rows: usize,
    /// A u32 for each row, zero between launches.
    pub counters: u64,
}

/// What has to be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The largest logit.
    Greedy,
    /// The first k, and perhaps fewer.
    TopK,
    /// The shortest head of enough weight.
    TopP,
    /// Any token.
    Plain,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Greedy, Kind::TopK, Kind::TopP, Kind::Plain];

    /// What these parameters take.
    pub fn of(sampling: &Sampling) -> Kind {
        match sampling {
            Sampling { temperature: 0.0, .. } => Kind::Greedy,
            Sampling { top_k: 1.., .. } => Kind::TopK,
            Sampling { top_p, .. } if *top_p < 1.0 => Kind::TopP,
            _ => Kind::Plain,
        }
    }

    /// The least that serves both: rows skip what is not for them.
    pub fn with(self, other: Kind) -> Kind {
        match (self, other) {
            (kind, Kind::Greedy) | (Kind::Greedy, kind) => kind,
            (a, b) if a == b => a,
            _ => Kind::TopP,
        }
    }

    fn kernels(self) -> &'static [&'static str] {
        match self {
            Kind::Greedy => &["sample_scan"],
            Kind::TopK => &["sample_scan", "sample_weigh", "sample_refine"],
            Kind::TopP => &["sample_scan", "sample_weigh", "sample_refine", "sample_draw"],
            Kind::Plain => &["sample_scan", "sample_draw"],
        }
    }
}

/// Why the device does not draw like that; `None` if it does.
pub fn refusal(sampling: &Sampling) -> Option<String> {
    let n = sampling.repeat_last_n;
    (sampling.repeat_penalty != 1.0 && n > RECENT_MAX)
        .then(|| format!("the repeat penalty looks back at {n} tokens, the device keeps {RECENT_MAX}"))
}

/// Writes what a sequence's draws begin with. `recent` is everything so far, and the first token to be drawn
/// follows it.
///
/// # Panics
/// `words` are not [`STATE_WORDS`].
pub fn write_state(words: &mut [u32], sampling: &Sampling, recent: &[u32]) {
    assert_eq!(words.len(), STATE_WORDS);
    let position = recent.len() as u32;
    let recent = &recent[recent.len().saturating_sub(RECENT_MAX)..];
    let inverse = sampling.inverse().to_bits();
    let wide = [inverse, f64::from(sampling.top_p).to_bits(), sampling.least(), stream(sampling.seed), 0];
    let narrow = [
        u32::try_from(sampling.top_k).unwrap_or(u32::MAX),
        u32::try_from(sampling.repeat_last_n).unwrap_or(u32::MAX),
        sampling.repeat_penalty.to_bits(),
        recent.len() as u32,
        position,
        0,
        0,
        0,
    ];
    let (head, kept) = words.split_at_mut(HEAD_WORDS);
    let halves = wide.iter().flat_map(|word| [*word as u32, (word >> 32) as u32]);
    head.iter_mut().zip(halves.chain(narrow)).for_each(|(to, from)| *to = from);
    kept[..recent.len()].copy_from_slice(recent);
    kept[recent.len()..].fill(0);
}

/// Writes for which rows of logits tokens are drawn: of these slots, in order. Entries of the ring are
/// numbered from `number + 1` on.
///
/// # Panics
/// `words` are too few for the slots.
pub fn write_batch(words: &mut [u32], slots: impl Iterator<Item = usize>, number: u32) {
    let (head, rows) = words.split_at_mut(BATCH_HEAD_WORDS);
    rows.fill(0);
    let mut count = 0;
    for (n, slot) in slots.enumerate() {
        rows[2 * n..][..2].copy_from_slice(&[slot as u32, number]);
        count = n as u32 + 1;
    }
    head.copy_from_slice(&[count, 0]);
}

/// What the bodies are made of.
const HEADERS: &[(&str, &str)] = &[
    unit::DEVICE,
    ("sample/weigh.cuh", include_str!("weigh.cuh")),
    ("sample/draw.cuh", include_str!("draw.cuh")),
    ("sample/kernel.cuh", include_str!("kernel.cuh")),
];

/// Launches for a vocabulary and batches of at most `rows` rows.
pub fn calls(at: &Places, vocab: usize, kind: Kind, rows: usize) -> Vec<Call> {
    let unit = Unit {
        headers: HEADERS,
        op: ("sample/kernel.cu", include_str!("kernel.cu")),
        defines: vec![
            ("K_VOCAB", vocab.to_string()),
            ("K_RECENT", RECENT_MAX.to_string()),
            ("K_RING", RING.to_string()),
            ("K_STATE_BYTES", (4 * STATE_WORDS).to_string()),
            ("K_WORK_BYTES", work_bytes(vocab).to_string()),
        ],
    };
    let chunk = (vocab.div_ceil(THREADS * THREADS) * THREADS).max(1024);
    let args = [at.logits, at.states, at.batch, at.work, at.step, at.ring, at.counters];
    let args = args.into_iter().fold(Args::new(), Args::address);
    let args = args.size(at.stride).size(at.ring_rows);
    let call = |kernel: &&'static str| Call {
        unit: unit.clone(),
        kernel,
        grid: [vocab.div_ceil(chunk) as u32, rows as u32, 1],
        block: THREADS as u32,
        shared: 0,
        args: args.clone(),
    };
    kind.kernels().iter().map(call).collect()
}
