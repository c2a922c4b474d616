//! Stop strings, found across tokens.

use crate::Error;

/// What may be shown after a push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopResult {
    /// Text that is safe to show now.
    pub text: String,
    /// A stop string has been found; neither it nor anything after it is shown.
    pub stopped: bool,
}

/// Watches streamed text for stop strings. The first one to be complete wins; of several complete at the
/// same place, the longest. Only an ending that may begin a stop string is held back.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher for some stop strings, possibly none. Empty strings are refused.
    pub fn new(stops: Vec<String>) -> Result<StopMatcher, Error> {
        match stops.iter().position(String::is_empty) {
            Some(index) => Err(Error::EmptyStop(index)),
            None => Ok(StopMatcher { stops, held: String::new(), stopped: false }),
        }
    }

    /// Takes the next text.
    pub fn push(&mut self, text: &str) -> StopResult {
        if self.stopped {
            return StopResult { text: String::new(), stopped: true };
        }
        self.held.push_str(text);
        let ends = |stop: &String| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start));
        if let Some((_, start)) = self.stops.iter().filter_map(ends).min() {
            self.stopped = true;
            self.held.truncate(start);
            return StopResult { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.stops.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        StopResult { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// Ends the text: what was held back after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The length of the longest ending of `text` that begins `mark` without being all of it.
pub(crate) fn begun(text: &str, mark: &str) -> usize {
    let possible = |length: &usize| mark.get(..*length).is_some_and(|start| text.ends_with(start));
    (1..mark.len()).rev().find(possible).unwrap_or(0)
}
