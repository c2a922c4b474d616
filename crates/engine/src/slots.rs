//! What the slots of an executable cache, and which of them a prompt takes.

/// What one slot caches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// Tokens whose keys and values (and states) are cached, in order.
    pub tokens: Vec<u32>,
    /// Of these, how many from the start were computed in whole prefill chunks: they have the bits that every
    /// sequence gives them.
    pub whole: usize,
    /// When a sequence last left it.
    pub used: u64,
}

/// How much of a cache a sequence may reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reuse {
    /// The model has summed up what it read and cannot go back: all of a cache or nothing.
    pub all_or_none: bool,
    /// Only what was computed in whole chunks of this many tokens.
    pub chunk: Option<usize>,
}

impl Slot {
    /// How many of the cached tokens a prompt can start from: those it begins with, but for its last one,
    /// whose logits are what generation starts from.
    pub fn reusable(&self, prompt: &[u32], reuse: Reuse) -> usize {
        let before_last = &prompt[..prompt.len() - 1];
        let shared = self.tokens.iter().zip(before_last).take_while(|(a, b)| a == b).count();
        let shared = reuse.chunk.map_or(shared, |chunk| shared.min(self.whole) / chunk * chunk);
        if reuse.all_or_none && shared < self.tokens.len() { 0 } else { shared }
    }

    /// Forgets all but the first tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.whole = self.whole.min(len);
    }
}

/// The slot for a prompt among those that are free: the one with most that can be reused, if that is at least
/// half of what it caches; otherwise the one that was left longest ago.
pub(crate) fn choose(
    slots: &[Slot],
    free: impl Iterator<Item = usize> + Clone,
    prompt: &[u32],
    reuse: Reuse,
) -> Option<usize> {
    let reusable = |slot: &usize| slots[*slot].reusable(prompt, reuse);
    let fitting = free.clone().filter(|slot| {
        let found = reusable(slot);
        found > 0 && 2 * found >= slots[*slot].tokens.len()
    });
    fitting.max_by_key(reusable).or_else(|| free.min_by_key(|slot| slots[*slot].used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(tokens: &[u32], used: u64) -> Slot {
        Slot { tokens: tokens.to_vec(), whole: tokens.len(), used }
    }

    const ANY: Reuse = Reuse { all_or_none: false, chunk: None };

    #[test]
    fn a_recurrence_reuses_all_or_nothing() {
        for (cached, prompt, shared, all_or_none) in [
            (&[][..], &[1][..], 0, 0),
            (&[1, 2, 3], &[1, 2, 3, 4], 3, 3),
            (&[1, 2, 3], &[1, 2, 3], 2, 0),
            (&[1, 2, 3], &[1, 2, 9, 4], 2, 0),
            (&[1, 2, 3], &[1, 2], 1, 0),
            (&[1, 2, 3], &[7, 2, 3, 4], 0, 0),
        ] {
            let cached = slot(cached, 0);
            assert_eq!(cached.reusable(prompt, ANY), shared, "{cached:?} {prompt:?}");
            let recurrent = Reuse { all_or_none: true, ..ANY };
            assert_eq!(cached.reusable(prompt, recurrent), all_or_none, "{cached:?} {prompt:?}");
        }
    }

    #[test]
    fn whole_chunks_only_where_bits_depend_on_them() {
        let reuse = Reuse { all_or_none: false, chunk: Some(4) };
        let mut cached = slot(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0);
        cached.whole = 8;
        assert_eq!(cached.reusable(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], reuse), 8);
        assert_eq!(cached.reusable(&[1, 2, 3, 4, 5, 6, 7, 8], reuse), 4, "the last token is run again");
        cached.truncate(5);
        assert_eq!(cached.reusable(&[1, 2, 3, 4, 5, 6], reuse), 4);
    }

    #[test]
    fn a_prompt_takes_the_slot_that_caches_its_beginning_or_else_the_oldest() {
        let slots =
            [slot(&[1, 2, 3, 4], 3), slot(&[1, 2], 2), slot(&[9; 30], 1), slot(&[1, 2, 3, 4, 5, 6], 4)];
        let choose = |prompt: &[u32], free: &[usize]| choose(&slots, free.iter().copied(), prompt, ANY);
        assert_eq!(choose(&[1, 2, 3, 4, 5, 6, 7], &[0, 1, 2, 3]), Some(3));
        assert_eq!(choose(&[1, 2, 3, 4, 5, 6, 7], &[0, 1, 2]), Some(0));
        assert_eq!(choose(&[7, 8], &[0, 1, 2, 3]), Some(2), "the oldest");
        assert_eq!(choose(&[9, 9, 8], &[0, 2, 3]), Some(2), "the oldest, and it starts with two of them");
        assert_eq!(choose(&[1, 2, 7], &[2, 3]), Some(2), "a third is not worth what would be lost");
        assert_eq!(choose(&[1], &[]), None);
    }
}
