//! The steps of a test.

use amoeba_backend::Row as Token;
use amoeba_plan::Plan;

use super::subject::{Kind, Test};

/// Steps of a test.
pub(super) struct Steps {
    /// What is cached before, off the clock.
    pub before: Vec<Vec<Token>>,
    /// What is timed.
    pub timed: Vec<Vec<Token>>,
}

/// The steps of a test, in chunks of at most `chunk` rows.
pub(super) fn steps(plan: &Plan, test: Test, chunk: usize) -> Steps {
    let vocab = plan.spec.vocab as u32;
    // Spread over the vocabulary and, through the router, over the experts; sequences differ.
    let token =
        |slot: usize, position: usize| ((position + slot * 977) as u32).wrapping_mul(2_654_435_761) % vocab;
    let row = |slot, position, logits| Token { token: token(slot, position), slot, position, logits };
    let chunks = |slot: usize, from: usize, to: usize| -> Vec<Vec<Token>> {
        let starts = (from..to).step_by(chunk);
        let rows = |start: usize| (start..to.min(start + chunk)).map(|i| row(slot, i, i + 1 == to)).collect();
        starts.map(rows).collect()
    };
    let end = test.cached() + test.tokens;
    let timed = match test.kind {
        Kind::Prefill => chunks(0, test.cached(), end),
        Kind::Decode => {
            let rows = |position| (0..test.batch).map(|slot| row(slot, position, true)).collect();
            (test.cached()..end).map(rows).collect()
        }
    };
    Steps { before: (0..test.batch).flat_map(|slot| chunks(slot, 0, test.cached())).collect(), timed }
}
