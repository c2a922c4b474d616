//! What recording costs: the same tokens with and without, in turn.

use std::path::Path;
use std::time::Instant;

use super::capture::Decoder;
use super::{CaptureOptions, load};
use crate::Error;
use crate::bench::Spread;

/// Durations of a token in ns, and what recording adds. Of every round the quietest tenth counts: other work
/// on the machine only ever adds.
#[derive(Clone, Copy, Debug)]
pub struct Overhead {
    /// Over the rounds, recording off.
    pub off: Spread,
    /// Over the rounds, recording on.
    pub on: Spread,
    /// On over off minus 1, round by round.
    pub added: Spread,
}

/// Decodes `options.tokens` tokens with recording on, then off (and the other way round every second time),
/// `rounds` times.
///
/// # Errors
/// As [`super::capture()`].
pub fn overhead(dir: &Path, options: &CaptureOptions, rounds: usize) -> Result<Overhead, Error> {
    let (mut executable, _) = load(dir, options)?;
    let mut decoder = Decoder { executable: &mut *executable, first: options.cached(), next: 0 };
    decoder.warm_up()?;
    let mut quiet = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for recording in [round % 2 == 1, round % 2 == 0] {
            if recording {
                decoder.reserve()?;
            } else {
                decoder.executable.record(0)?;
            }
            // One off the clock: both begin with what the other left in the caches.
            let mut samples = Vec::with_capacity(options.tokens);
            decoder.seek(decoder.first)?;
            decoder.decode(decoder.first)?;
            decoder.seek(decoder.first)?;
            for position in decoder.first..decoder.first + options.tokens {
                let started = Instant::now();
                decoder.decode(position)?;
                samples.push(started.elapsed().as_nanos() as u64);
            }
            quiet[usize::from(recording)].push(Spread::of(&samples).p10);
        }
    }
    let added = quiet[1].iter().zip(&quiet[0]).map(|(on, off)| on / off - 1.0).collect();
    let [off, on] = quiet.map(Spread::of_values);
    Ok(Overhead { off, on, added: Spread::of_values(added) })
}

impl Overhead {
    /// Two lines for people.
    pub fn text(&self) -> String {
        let micros =
            |s: &Spread| format!("{:.1} µs ({:.1} to {:.1})", s.median / 1e3, s.p10 / 1e3, s.p90 / 1e3);
        let [median, p10, p90] = [self.added.median, self.added.p10, self.added.p90].map(|x| x * 100.0);
        format!(
            "recording off: {} a token; on: {}\nrecording adds {median:.2} % ({p10:.2} to {p90:.2}), median \
             (p10 to p90) of paired rounds\n",
            micros(&self.off),
            micros(&self.on)
        )
    }
}
