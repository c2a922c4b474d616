//! What a model needs in memory, and whether it fits.
use amoeba::{KvType, LoadOptions, Plan};
use amoeba_backend::workspace_bytes;
use amoeba_plan::Stored;

use super::console::bytes;
use super::failure::{self, Failure};
use super::system::{self, Memory};

/// Bytes a loaded model holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Weights.
    pub weights: u64,
    /// Keys and values of the whole context, and the states of recurrent layers.
    pub cache: u64,
    /// Buffers of a prefill chunk: activations, rows prepared for products, partial results.
    pub buffers: u64,
    /// Positions reserved.
    pub context: usize,
}

impl Need {
    /// What `plan` with weights stored like that takes under these options.
    pub fn new(plan: &Plan, stored: &[Stored], options: &LoadOptions) -> Result<Need, Failure> {
        let limits = options.limits(plan)?;
        let floats =
            |elements: usize, times: usize| (elements as u64).saturating_mul(times as u64).saturating_mul(4);
        let halves = if options.kv == KvType::F16 { 2 } else { 1 };
        Ok(Need {
            weights: stored.iter().map(|stored| stored.bytes as u64).sum(),
            cache: (floats(plan.cache_elements_per_position(), limits.context) / halves)
                .saturating_add(floats(plan.cache_elements_per_sequence(), 1))
                .saturating_mul(limits.slots as u64),
            buffers: workspace_bytes(plan, stored, limits, options.activations),
            context: limits.context,
        })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.buffers)
    }

    /// Refuses what does not fit, unless the machine does not tell.
    pub fn check(&self) -> Result<(), Failure> {
        system::memory().map_or(Ok(()), |memory| self.check_against(memory))
    }

    fn check_against(&self, memory: Memory) -> Result<(), Failure> {
        if self.total() <= memory.available {
            return Ok(());
        }
        let whose = if memory.limited { "this container" } else { "this machine" };
        let message = format!(
            "the model needs {} of memory ({} weights, {} for {} positions of context, {} buffers) and \
             {whose} has {} left: take a smaller context (-c), a smaller model, or try all the same with \
             --force",
            bytes(self.total()),
            bytes(self.weights),
            bytes(self.cache),
            self.context,
            bytes(self.buffers),
            bytes(memory.available),
        );
        Err(Failure::new(failure::NO_FIT, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_numbers_and_advice() {
        let need =
            Need { weights: 17_000_000_000, cache: 2_000_000_000, buffers: 1_000_000_000, context: 8192 };
        let memory = |available| Memory { total: 32_000_000_000, available, limited: false };
        assert!(need.check_against(memory(20_000_000_000)).is_ok());
        let failure = need.check_against(memory(19_000_000_000)).unwrap_err();
        assert_eq!(failure.code, failure::NO_FIT);
        for part in ["20.0 GB", "17.0 GB weights", "8192 positions", "19.0 GB", "-c", "--force"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
}
