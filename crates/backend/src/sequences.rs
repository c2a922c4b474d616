//! Where each sequence goes on. What a recurrence has read it has summed up: it cannot go back, only on or
//! start anew.

use amoeba_plan::Plan;

use crate::{Error, Limits, Row};

/// Next position of every sequence; empty for a plan without recurrent caches, whose sequences go on
/// anywhere.
pub struct Sequences {
    /// `None` where the state is undefined.
    next: Vec<Option<usize>>,
}

impl Sequences {
    /// All sequences not yet begun.
    pub fn new(plan: &Plan, limits: Limits) -> Sequences {
        Sequences { next: vec![None; if plan.recurrent() { limits.slots } else { 0 }] }
    }

    /// Checks that rows (within the limits) begin sequences or go on with them, each sequence in one stretch.
    /// Unless the step is [completed](Sequences::complete), their states are undefined from here on.
    ///
    /// # Errors
    /// The first row that does neither; nothing has changed then.
    pub fn begin(&mut self, rows: &[Row]) -> Result<(), Error> {
        if self.next.is_empty() {
            return Ok(());
        }
        for (i, row) in rows.iter().enumerate() {
            let Row { slot, position, .. } = *row;
            let before = i.checked_sub(1).map(|i| rows[i]).filter(|before| before.slot == slot);
            let follows = match before {
                Some(before) => position == before.position + 1,
                None if rows[..i].iter().any(|before| before.slot == slot) => false,
                None => position == 0 || self.next[slot] == Some(position),
            };
            if !follows {
                return Err(Error::NotContinuous { slot, position, next: self.next[slot] });
            }
        }
        rows.iter().for_each(|row| self.next[row.slot] = None);
        Ok(())
    }

    /// The rows that began have run.
    pub fn complete<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        if !self.next.is_empty() {
            rows.into_iter().for_each(|row| self.next[row.slot] = Some(row.position + 1));
        }
    }

    /// The state of a sequence means nothing any more.
    pub fn lose(&mut self, slot: usize) {
        if let Some(next) = self.next.get_mut(slot) {
            *next = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[(usize, usize)]) -> Vec<Row> {
        of.iter().map(|&(slot, position)| Row { token: 0, slot, position, logits: false }).collect()
    }

    #[test]
    fn sequences_begin_or_go_on_and_nothing_else() {
        let mut sequences = Sequences { next: vec![None; 3] };
        let mut step = |of: &[(usize, usize)]| {
            let rows = rows(of);
            sequences.begin(&rows).map(|()| sequences.complete(&rows))
        };
        let refused = |result: Result<(), Error>| match result {
            Err(Error::NotContinuous { slot, position, next }) => (slot, position, next),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(step(&[(0, 1)])), (0, 1, None), "begins at 0");
        step(&[(0, 0), (0, 1), (2, 0)]).unwrap();
        assert_eq!(refused(step(&[(2, 1), (0, 1)])), (0, 1, Some(2)), "goes on at 2");
        step(&[(2, 1), (0, 2)]).unwrap();
        assert_eq!(refused(step(&[(0, 3), (2, 2), (0, 4)])), (0, 4, Some(3)), "in one stretch");
        assert_eq!(refused(step(&[(0, 3), (0, 5)])), (0, 5, Some(3)), "without gaps");
        assert_eq!(refused(step(&[(0, 3), (0, 0)])), (0, 0, Some(3)), "begins at the start of its stretch");
        step(&[(0, 0)]).unwrap();
        step(&[(0, 1), (1, 0), (2, 2)]).unwrap();
    }

    #[test]
    fn a_step_that_was_not_completed_leaves_no_state() {
        let mut sequences = Sequences { next: vec![Some(5), Some(7)] };
        sequences.begin(&rows(&[(0, 5)])).unwrap();
        assert!(sequences.begin(&rows(&[(0, 6)])).is_err());
        assert!(sequences.begin(&rows(&[(0, 5)])).is_err());
        sequences.begin(&rows(&[(1, 7)])).unwrap();
        sequences.begin(&rows(&[(0, 0)])).unwrap();
    }
}
