//! Launches of `sample`: one row's logits to a token, which goes to the host and into the next step.

use super::{Sampling, stream};
use crate::cuda::{Args, Call, Unit, unit};

/// Tokens that the repeat penalty may look back at.
pub const RECENT_MAX: usize = 1024;

/// Mails that the host may leave unread, one less than this.
pub const MAILS: usize = 8;

/// u32 words of a mail: its number, the token, the first id whose logit is not finite ([`ALL_FINITE`] if none), that logit.
pub const MAIL_WORDS: usize = 4;

/// Third word of a mail if there is nothing to complain of.
pub const ALL_FINITE: u32 = u32::MAX;

/// u32 words of the state: see [`write_state`].
pub const STATE_WORDS: usize = HEAD_WORDS + RECENT_MAX;
const HEAD_WORDS: usize = 18;

const THREADS: usize = 256;
const BANDS: usize = 1024;

/// Bytes of working memory; undefined contents.
pub fn work_bytes(vocab: usize) -> usize {
    THREADS * (8 + 8 + 4) + BANDS * (8 + 4) + 3 * 8 + 4 * 4 + 16 * vocab
}

/// Where everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The row's logits, f32; a repeat penalty changes them.
    pub logits: u64,
    /// [`STATE_WORDS`], as [`write_state`] leaves them; a draw takes them on.
    pub state: u64,
    /// [`work_bytes`].
    pub work: u64,
    /// The step: a draw makes it the next one of its sequence.
    pub step: u64,
    /// [`MAILS`] times [`MAIL_WORDS`], where the host reads them.
    pub mails: u64,
    /// A u32 that is zero between launches.
    pub counter: u64,
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

/// Writes what a sequence's draws begin with. `recent` is everything so far; `next` is slot and position of the first token to
/// be drawn; mails are numbered from `number + 1` on.
///
/// # Panics
/// `words` are not [`STATE_WORDS`].
pub fn write_state(
    words: &mut [u32],
    sampling: &Sampling,
    recent: &[u32],
    next: (usize, usize),
    number: u32,
) {
    assert_eq!(words.len(), STATE_WORDS);
    let recent = &recent[recent.len().saturating_sub(RECENT_MAX)..];
    let inverse = sampling.inverse().to_bits();
    let wide = [inverse, f64::from(sampling.top_p).to_bits(), sampling.least(), stream(sampling.seed), 0];
    let narrow = [
        u32::try_from(sampling.top_k).unwrap_or(u32::MAX),
        u32::try_from(sampling.repeat_last_n).unwrap_or(u32::MAX),
        sampling.repeat_penalty.to_bits(),
        recent.len() as u32,
        next.0 as u32,
        next.1 as u32,
        number,
        0,
    ];
    let (head, kept) = words.split_at_mut(HEAD_WORDS);
    let halves = wide.iter().flat_map(|word| [*word as u32, (word >> 32) as u32]);
    head.iter_mut().zip(halves.chain(narrow)).for_each(|(to, from)| *to = from);
    kept[..recent.len()].copy_from_slice(recent);
    kept[recent.len()..].fill(0);
}

/// Launches for a vocabulary.
pub fn calls(at: &Places, vocab: usize, kind: Kind) -> Vec<Call> {
    let unit = Unit {
        headers: &[unit::DEVICE],
        op: ("sample/kernel.cu", include_str!("kernel.cu")),
        defines: vec![
            ("K_VOCAB", vocab.to_string()),
            ("K_RECENT", RECENT_MAX.to_string()),
            ("K_MAILS", MAILS.to_string()),
            ("K_STATE_BYTES", (4 * STATE_WORDS).to_string()),
            ("K_WORK_BYTES", work_bytes(vocab).to_string()),
        ],
    };
    let chunk = (vocab.div_ceil(THREADS * THREADS) * THREADS).max(1024);
    let args = [at.logits, at.state, at.work, at.step, at.mails, at.counter];
    let args = args.into_iter().fold(Args::new(), Args::address);
    let call = |kernel: &&'static str| Call {
        unit: unit.clone(),
        kernel,
        grid: [vocab.div_ceil(chunk) as u32, 1, 1],
        block: THREADS as u32,
        shared: 0,
        args: args.clone(),
    };
    kind.kernels().iter().map(call).collect()
}
